"""Galaxy's own machinery for tools' tests, held to the tests that are asked for.

Usage: stock_tests.py URL KEY RESULT.json TOOL:INDEX…; run by Galaxy's interpreter.
"""

from __future__ import annotations

import sys

from galaxy.tool_util.verify.script import TestReference, arg_parser, run_tests

PARALLEL = 4


def main(url: str, key: str, result: str, *wanted: str) -> None:
    """Run the tests; what became of each stands in the result, as Galaxy writes it."""

    def is_unwanted(reference: TestReference) -> bool:
        return f"{reference.tool_id}:{reference.test_index}" not in wanted

    arguments = [
        *("--galaxy-url", url, "--key", key, "--admin-key", key, "--output-json", result),
        *("--parallel-tests", str(PARALLEL), "--no-history-cleanup"),
    ]
    run_tests(arg_parser().parse_args(arguments), [is_unwanted])


if __name__ == "__main__":
    main(*sys.argv[1:])

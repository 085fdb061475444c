"""A real pipeline as three jobs, each taking the one before by URI, against the same by hand."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access
from service_rule import require_program

ALIGN = "bwa mem -t 1 ref/genome.fa r1.fq r2.fq > aln.sam"
SORT = "samtools sort -O bam -o sorted.bam aln.sam && samtools index sorted.bam"
CALL = (
    "bcftools mpileup --no-version -f ref/genome.fa sorted.bam"
    " | bcftools call --no-version -mv -O v -o calls.vcf"
)
SNPS = {4_000: "A", 9_500: "C", 15_250: "G"}
INDEX = ("amb", "ann", "bwt", "pac", "sa")


@dataclass(frozen=True)
class Laboratory:
    """Reads of a sample that differs from the genome at `snps` (1-based position, base)."""

    directory: Path
    snps: dict[int, str]


@pytest.fixture
def laboratory(tmp_path: Path) -> Laboratory:
    for program in ("bwa", "samtools", "bcftools"):
        require_program(program)
    directory = tmp_path / "by-hand"
    (directory / "ref").mkdir(parents=True)
    dice = random.Random(7)  # noqa: S311  # simulated reads
    genome = dice.choices("ACGT", k=20_000)
    sample, snps = list(genome), {}
    for position, base in SNPS.items():
        other = base if genome[position - 1] != base else "T"
        sample[position - 1] = snps[position] = other
    (directory / "ref" / "genome.fa").write_text(">chr1\n" + "".join(genome) + "\n")
    _write_reads(directory, "".join(sample), dice)
    for command in ("bwa index ref/genome.fa", "samtools faidx ref/genome.fa"):
        _by_hand(directory, command)
    return Laboratory(directory, snps)


def _write_reads(directory: Path, sample: str, dice: random.Random) -> None:
    complement = str.maketrans("ACGT", "TGCA")
    with (directory / "r1.fq").open("w") as first, (directory / "r2.fq").open("w") as second:
        for number in range(4_000):
            start = dice.randrange(len(sample) - 400)
            ends = sample[start : start + 100], sample[start + 300 : start + 400]
            reverse = ends[1].translate(complement)[::-1]
            first.write(f"@r{number}/1\n{ends[0]}\n+\n{'I' * 100}\n")
            second.write(f"@r{number}/2\n{reverse}\n+\n{'I' * 100}\n")


def _by_hand(directory: Path, command: str) -> None:
    subprocess.run(["sh", "-c", command], cwd=directory, check=True, capture_output=True)


def test_three_chained_jobs_make_what_the_same_commands_make_by_hand(
    tmp_path: Path, rgw_access: S3Access, laboratory: Laboratory
) -> None:
    here = laboratory.directory
    for command in (ALIGN, SORT, CALL):
        _by_hand(here, command)
    bucket = rgw_access.config.bucket
    desk = Desk(tmp_path, rgw_access, references={"genome": f"s3://{bucket}/indices/chr1/"})
    for suffix in ("fa", "fa.fai", *(f"fa.{kind}" for kind in INDEX)):
        body = (here / "ref" / f"genome.{suffix}").read_bytes()
        desk.store.put(
            f"indices/chr1/genome.{suffix}",
            lambda body=body: iter((body,)),  # type: ignore[misc]  # bound in the loop
            size=len(body),
            part_size=len(body),
        )

    aligned = desk.run_job(
        name="align",
        command=ALIGN,
        inputs={name: str(here / name) for name in ("r1.fq", "r2.fq")},
        references=[{"genome": "ref"}],
        outputs=["aln.sam"],
    )
    assert aligned.code == 0, aligned.stderr
    uri = aligned.json["outputs"][0]["uri"]
    ordered = desk.run_job(
        name="sort",
        command=["sh", "-c", SORT],
        inputs={"aln.sam": uri},
        outputs=["sorted.bam", "sorted.bam.bai"],
    )
    assert ordered.code == 0, ordered.stderr
    called = desk.run_job(
        name="call",
        command=CALL,
        inputs={output["path"]: output["uri"] for output in ordered.json["outputs"]},
        references=[{"genome": "ref"}],
        outputs=["calls.vcf"],
    )
    assert called.code == 0, called.stderr

    for name in ("align/aln.sam", "sort/sorted.bam", "sort/sorted.bam.bai", "call/calls.vcf"):
        assert (tmp_path / name).read_bytes() == (here / Path(name).name).read_bytes(), name
    for run in (ordered, called):
        assert run.json["phases"]["stage_in"]["bytes"] == 0
    rows = [
        line.split("\t")
        for line in (tmp_path / "call" / "calls.vcf").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert {int(row[1]): row[4] for row in rows} == laboratory.snps

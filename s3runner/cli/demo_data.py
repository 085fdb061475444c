"""The demo's laboratory: a small genome, two samples sequenced from it, and a job that checks them.

All of it is made from a fixed seed with the standard library, so that the demo needs no download
and says the same thing everywhere.
"""

from __future__ import annotations

import random
from pathlib import Path

_GENOME_BASES = 30_000
_READ_BASES = 100
_READS = {"healthy": 12_000, "degraded": 8_000}
_CONTAMINATION = {"healthy": 0.01, "degraded": 0.18}

JOB = """\
name: read-qc
command: sh scripts/qc.sh
inputs:
  reads: ./reads            # a directory: two FASTQ files
  scripts: ./scripts        # a directory with our own tool
references: [genome]        # lies in S3 already, like a genome index would
outputs:
  - summary.tsv
  - qc                      # a directory: one table a sample
resources: {cpu: 1, memory: 512Mi}
walltime: 10m
"""

SCRIPT = r"""#!/bin/sh
# Quality control of sequencing reads with nothing but awk: for each sample the quality at each
# cycle, GC content, and the share of reads whose 31-mers are in the reference genome.
set -eu
mkdir -p qc
printf 'sample\treads\tbases\tGC%%\tmean Q\tlast cycle Q\tin genome%%\n' >summary.tsv
for file in reads/*.fastq; do
  sample=$(basename "$file" .fastq)
  awk -v sample="$sample" -v table="qc/$sample.tsv" '
    BEGIN { for (i = 33; i < 127; i++) phred[sprintf("%c", i)] = i - 33 }
    FNR == NR { if ($0 !~ /^>/) genome = genome $0; next }
    !indexed {
      for (i = 1; i + 30 <= length(genome); i++) known[substr(genome, i, 31)]
      indexed = 1
    }
    FNR % 4 == 2 {
      reads++; bases += length($0); sequence = $0
      gc += gsub(/[GC]/, "", sequence)
      middle = substr($0, int(length($0) / 2) - 15, 31)
      inside += (middle in known)
    }
    FNR % 4 == 0 {
      for (i = 1; i <= length($0); i++) { q = phred[substr($0, i, 1)]; sum[i] += q; all += q }
      if (length($0) > cycles) cycles = length($0)
    }
    END {
      print "cycle\tmean_quality" >table
      for (i = 1; i <= cycles; i++) printf "%d\t%.2f\n", i, sum[i] / reads >table
      printf "%s\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.1f\n", sample, reads, bases, 100 * gc / bases,
             all / bases, sum[cycles] / reads, 100 * inside / reads
    }' "$S3RUNNER_REF_GENOME" "$file" >>summary.tsv
  echo "checked $sample" >&2
done
cat summary.tsv
"""


def write_laboratory(directory: Path) -> Path:
    """Write reads, script, genome and job file below `directory`; return the job file's path."""
    dice = random.Random(20)  # noqa: S311  # the same reads every time, no secret
    genome = "".join(dice.choices("ACGT", weights=(3, 2, 2, 3), k=_GENOME_BASES))
    (directory / "genome.fa").write_text(f">chr1\n{genome}\n")
    (directory / "reads").mkdir()
    for sample, reads in _READS.items():
        share = _CONTAMINATION[sample]
        with (directory / "reads" / f"{sample}.fastq").open("w") as file:
            for number in range(reads):
                file.write(_read(dice, genome, f"{sample}:{number}", share))
    (directory / "scripts").mkdir()
    (directory / "scripts" / "qc.sh").write_text(SCRIPT)
    job = directory / "job.yml"
    job.write_text(JOB)
    return job


def _read(dice: random.Random, genome: str, name: str, contamination: float) -> str:
    """Return one FASTQ record: from the genome or from elsewhere, worse towards its end."""
    if dice.random() < contamination:
        bases = "".join(dice.choices("ACGT", k=_READ_BASES))
    else:
        start = dice.randrange(_GENOME_BASES - _READ_BASES)
        bases = genome[start : start + _READ_BASES]
    fall = 0.05 if contamination < 0.1 else 0.22  # noqa: PLR2004  # the degraded sample
    quality = "".join(
        chr(33 + max(2, min(40, int(dice.gauss(38 - fall * cycle, 2)))))
        for cycle in range(_READ_BASES)
    )
    return f"@{name}\n{bases}\n+\n{quality}\n"

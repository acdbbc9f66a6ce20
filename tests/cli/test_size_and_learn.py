"""Requests for jobs of other systems, and what those recorded."""

import re

import pytest
import yaml
from dask.utils import parse_bytes
from msgspec.structs import replace

from pytest_membudget import fit_points, load_calibration
from pytest_membudget.calibration.other_systems import request_for
from pytest_membudget.cli import main
from pytest_membudget.cli.calibrations import render_request

MB, MIB = 1_000_000, 1024 * 1024
POINTS = [(size * MB, (100 + 3 * size) * MB) for size in (1, 2, 4, 8)]


def request(aim="safe", items=("8 MB",), **options):
    return request_for(fit_points(POINTS), items, aim, interpreter_bytes=10 * MB, **options)


def test_a_job_asks_for_the_interpreter_and_the_largest_of_its_inputs():
    found = request(items=["1 MB", "8 MB", "2 MB"])
    assert found.largest == "8 MB"
    assert found.attempts_bytes[0] >= 10 * MB + fit_points(POINTS).bound("8 MB", content=0.99)
    assert list(found.attempts_bytes) == sorted(set(found.attempts_bytes))
    assert len(request(attempts=1).attempts_bytes) == 1
    assert request("cheap").attempts_bytes[0] <= found.attempts_bytes[0]


@pytest.mark.parametrize("aim", ["safe", "cheap"])
@pytest.mark.parametrize("attempts", [1, 3])
def test_every_system_reads_its_request(aim, attempts):
    found = request(aim, attempts=attempts)
    first, last = found.attempts_bytes[0], found.attempts_bytes[-1]

    slurm = re.findall(r"--mem=([0-9]+)M\b", render_request(found, "slurm"))
    assert [int(each) for each in slurm] == [-(-each // MIB) for each in found.attempts_bytes]

    resources = yaml.safe_load(render_request(found, "kubernetes"))["resources"]
    assert resources["requests"] == resources["limits"]
    assert parse_bytes(resources["limits"]["memory"] + "B") == -(-first // MIB) * MIB

    nextflow = render_request(found, "nextflow")
    assert f"maxRetries = {attempts - 1}" in nextflow
    assert f"{-(-last // MIB)}.MB]" in nextflow
    assert nextflow.startswith("// membudget: aim ")

    snakemake = render_request(found, "snakemake").splitlines()
    of_attempt = eval(snakemake[-1].strip().removeprefix("mem_mb="))
    assert [of_attempt(None, attempt=each) for each in (1, attempts)] == [-(-first // MB), -(-last // MB)]
    assert f"retries: {attempts - 1}" in snakemake

    dask = render_request(found, "dask")
    assert 0.8 * parse_bytes(re.search(r"--memory-limit (\S+)", dask)[1]) >= first
    assert f"MEMORY={first}" in dask


def test_the_promise_and_doubts_stand_above():
    assert "covers 99% of jobs like those measured with 95% confidence); for 8 MB" in render_request(
        request(), "slurm"
    )
    beyond = render_request(request(items=["80 MB"]), "nextflow")
    assert "// note: 1 input beyond what was calibrated (up to 8 MB): extrapolated" in beyond


def test_what_a_file_of_others_says_stays_in_its_comment():
    found = replace(request(), caveats=("one\n#SBATCH --mem=1M\r\nrm -rf x",))
    shown = render_request(found, "slurm").splitlines()
    assert [line for line in shown if line.startswith("#SBATCH")] == [shown[2]]
    assert shown[1] == r"# note: one\n#SBATCH --mem=1M\r\nrm -rf x"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_prints_a_request_for_files(project, capsys):
    fit_points(POINTS).save("c.json")
    (project / "input").write_bytes(bytes(2 * MB))
    assert main(["size", "./c.json", "input", "--for", "slurm", "--attempts", "2"]) == 0
    assert re.search(r"^#SBATCH --mem=[0-9]+M$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["c.json"], "name the inputs"),
        (["c.json", "absent"], "absent: No such file"),
        (["c.json", "c.json", "--size", "1 MB"], "--size and no files"),
        (["c.json", "--size", "1 MB", "--attempts", "0"], "give 1 or more"),
        (["none"], "there is no calibration 'none'"),
    ],
)
def test_a_request_that_makes_no_sense_ends_with_2(project, words, said, capsys):
    fit_points(POINTS).save("c.json")
    assert main(["size", *words, "--for", "slurm"]) == 2
    assert said in capsys.readouterr().err


def test_recorded_jobs_become_calibrations_and_requests(project, capsys):
    rows = [f"ALIGN (s{n})\tCOMPLETED\t{n}s\t{100 + n} MB\t{n} MB" for n in range(1, 6)]
    rows += [f"SORT\tCOMPLETED\t{n}s\t5{n} MB\t-" for n in range(3)] + ["RARE\tCOMPLETED\t1s\t5 MB\t-"]
    (project / "trace.txt").write_text("name\tstatus\trealtime\tpeak_rss\trchar\n" + "\n".join(rows) + "\n")
    assert main(["learn", "trace.txt", "--save", "flow"]) == 0
    shown = capsys.readouterr().out
    assert "ALIGN: 5 jobs, at most 105 MiB; 1.00 B/B of what it reads + 100 MiB" in shown
    assert "SORT: 3 jobs, at most 52 MiB; about 51.0 MiB for any input" in shown.replace("52.0", "52")
    assert "note: RARE has 1 job, and a calibration needs 3" in shown
    assert load_calibration(".membudget/calibrations/flow-ALIGN.json").file.peak_of == "job"

    assert main(["size", "flow-SORT", "--for", "slurm"]) == 0
    shown = capsys.readouterr().out  # a job's peak has all that it loads in it
    assert "for any input\n" in shown
    assert "# note: no sizes of inputs were recorded" in shown
    assert "before any input" not in shown


def test_a_record_with_too_few_jobs_ends_with_1_and_no_record_with_2(project, capsys):
    (project / "few.tsv").write_text("s\tmax_rss\n1\t20\n")
    assert main(["learn", "few.tsv"]) == 1
    assert main(["learn", "few.tsv", "--save", "../up"]) == 2
    (project / "odd.txt").write_text("hello")
    assert main(["learn", "odd.txt"]) == 2
    assert "is no record of jobs" in capsys.readouterr().err


def test_a_benchmark_file_for_each_sample_makes_one_kind(project, capsys):
    for sample in "abc":
        (project / f"{sample}.tsv").write_text("s\tmax_rss\n1\t20\n")
    assert main(["learn", "a.tsv", "b.tsv", "c.tsv", "--kind", "align"]) == 0
    assert "align: 3 jobs, at most 20.0 MiB" in capsys.readouterr().out


def test_kinds_whose_names_become_the_same_have_a_file_each(project):
    rows = [f"{kind} ({n})\tCOMPLETED\t50 MB\n" for kind in ("A:B", "A-B") for n in range(3)]
    (project / "trace.txt").write_text("name\tstatus\tpeak_rss\n" + "".join(rows))
    assert main(["learn", "trace.txt", "--save", "flow"]) == 0
    saved = [load_calibration(f".membudget/calibrations/flow-{name}.json") for name in ("A-B", "A-B-2")]
    assert [found.file.function for found in saved] == ["A-B", "A:B"]


def test_kinds_of_several_systems_have_files_and_doubts_of_their_own(project, capsys):
    (project / "trace.txt").write_text("name\tpeak_rss\n" + "".join(f"SORT ({n})\t50 MB\n" for n in range(3)))
    (project / "sort.tsv").write_text("s\tmax_rss\n" + "1\t20\n" * 3)
    assert main(["learn", "trace.txt", "sort.tsv", "--save", "all"]) == 0
    kinds = [load_calibration(f".membudget/calibrations/all-{name}.json").file for name in ("SORT", "sort-2")]
    sampled = [[caveat for caveat in kind.caveats if "sampled" in caveat] for kind in kinds]
    assert [len(each) for each in sampled] == [1, 1]
    assert ("Nextflow" in sampled[0][0], "Snakemake" in sampled[1][0]) == (True, True)


def test_a_request_says_what_speaks_against_its_law(project, capsys):
    fit_points([(MB, 9 * MB), (2 * MB, 300 * MB), (4 * MB, 20 * MB), (8 * MB, 900 * MB)]).save("odd.json")
    assert main(["size", "./odd.json", "--size", "3 MB", "--for", "slurm"]) == 0
    assert "# note: predicted from the others a peak is" in capsys.readouterr().out


def test_records_without_a_job_say_so(project, capsys):
    (project / "head.txt").write_text("name\tstatus\tpeak_rss\trchar\n")
    assert main(["learn", "head.txt"]) == 1
    assert "note: no finished job with a peak in head.txt" in capsys.readouterr().out
    (project / "many.txt").write_text("name\tpeak_rss\n" + "".join(f"K{n}\t5 MB\n" for n in range(8)))
    assert main(["learn", "many.txt"]) == 1
    assert "note: and 3 more kinds of job with fewer than 3" in capsys.readouterr().out

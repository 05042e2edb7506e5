"""Nothing but one clear sentence and an exit code leaves the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import shrinkbench
from sampling import sampled

from shrinkbench.cli import boundary, main
from shrinkbench.cli.boundary import run_guarded
from shrinkbench.errors import LONGEST, ShrinkbenchError, one_line
from shrinkbench.runner.provenance import Stopwatch, provenance


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ShrinkbenchError("wrong; mend it"), 2, "error: wrong; mend it"),
        (FileNotFoundError(2, "No such file", "place"), 2, "error: cannot use place: No such file"),
        (MemoryError(), 2, "error: there is not enough memory"),
        (
            ImportError("libtorch.so: failed to map segment from shared object"),
            2,
            "error: there is not enough memory",
        ),
        (ImportError("no module"), 70, "a fault of shrinkbench: "),
        (RecursionError(), 2, "error: the input is nested too deeply"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyError("a\nb"), 70, "a fault of shrinkbench: KeyError: "),
        (SystemExit("no"), 2, "error: somebody's code ends this command: it calls sys.exit('no')"),
        (GeneratorExit(), 70, "a fault of shrinkbench: GeneratorExit:"),
        (OSError("without a place"), 70, "a fault of shrinkbench: OSError: "),
    ],
)
def test_whatever_is_raised_is_told_in_one_line(capsys, tmp_path, monkeypatch, error, code, said):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        run_guarded(raising(error))
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == code
    assert len(lines) == 1
    assert lines[0].startswith(said)
    files = list(tmp_path.iterdir())
    assert bool(files) == (code == 70)
    if files:
        assert str(files[0]) in lines[0]
        assert "Traceback" in files[0].read_text()


def test_a_fault_is_told_where_no_file_can_be_written(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(SystemExit) as ended:
        run_guarded(raising(ValueError("x")))
    assert ended.value.code == boundary.FAULT
    assert "no file could be written" in capsys.readouterr().err


CALL = "import sys; sys.argv = ['shrinkbench', *{}]; from shrinkbench.cli import main; main()"


@pytest.mark.parametrize("words", [["literature", "lint"], ["list", "models"], ["--help"], ["store", "--help"]])
def test_a_closed_pipe_is_no_error(words):
    read, write = os.pipe()
    os.close(read)
    code = CALL.format(words)
    ended = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert ended.returncode == 141  # 1 would say that something differs, or is damaged
    assert ended.stderr == b""


def test_an_interrupted_command_says_so(monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shrinkbench.results.store.existing_store", interrupt)
    ended = shrinkbench("store", "verify", tmp_path)
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


LONG = "x" * 5000
BAD = {
    "no such command": ["nonsense"],
    "no such option": ["status", "--nonsense\nsecond"],
    "long option": ["status", f"--{LONG}"],
    "no experiment": ["sweep", "quikstart"],
    "long experiment": ["sweep", LONG],
    "lines in a name": ["sweep", "a\nb\nc"],
    "many digits": ["sweep", "quickstart", "--set", f"seed={'9' * 5000}"],
    "deep value": ["sweep", "quickstart", "--set", f"seed={'[' * 5000}"],
    "deep key": ["sweep", "quickstart", "--set", f"{'x.' * 5000}x=1"],
    "long key": ["sweep", "quickstart", "--set", f"{LONG}=1"],
    "unknown key": ["sweep", "quickstart", "--set", "sed=1"],
    "methods that are none": ["sweep", "quickstart", "--set", "method=3"],
    "methods within methods": ["sweep", "quickstart", "--set", "method=[[1], {}]"],
    "large seed": ["sweep", "quickstart", "--set", f"seed={2**63}"],
    "no output": ["sweep", "quickstart", "--out", ""],
    "a file as output": ["sweep", "quickstart", "--out", "file/below"],
    "many digits in a file": ["sweep", "digits.toml"],
    "deep file": ["sweep", "deep.toml"],
    "dotted file": ["sweep", "dotted.toml"],
    "endless file": ["sweep", "/dev/zero"],
    "pipe": ["sweep", "pipe"],
    "endless store": ["status", "/dev/zero"],
    "pipe as store": ["status", "pipe"],
    "long store": ["status", LONG],
    "method": ["prune", "--model", "digits-cnn", "--method", LONG, "--compression", "2"],
    "model": ["prune", "--model", LONG, "--method", "random", "--compression", "2"],
    "nobody's home": [
        "prune",
        "--model",
        "digits-cnn",
        "--method",
        "random",
        "--compression",
        "2",
        "--weights",
        "~no/x",
    ],
    "long data": ["evaluate", "--model", "digits-cnn", "--dataset", "digits", "--data", LONG],
    "pipe as masks": ["shrink", "--model", "digits-cnn", "--masks", "pipe", "--out", "small"],
    "long plug-in": ["check", f"{LONG}.py"],
    "corpus": ["literature", "summary", "--corpus", LONG],
}


@pytest.mark.parametrize("words", BAD.values(), ids=BAD)
def test_bad_input_is_one_short_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("digits.toml").write_text(f"seed = {'9' * 5000}")
    Path("deep.toml").write_text(f"seed = {'[' * 20_000}")
    Path("dotted.toml").write_text(f"{'x.' * 20_000}x = 1")
    os.mkfifo("pipe")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["shrinkbench", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr().err.splitlines(keepends=True)
    said = "".join(line for line in printed if "torch/utils" not in line)  # a library's own note
    assert ended.value.code == 2, said
    assert len(said.strip().splitlines()) == 1, said
    assert len(said) <= len("error: ") + LONGEST + 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_keeps_its_beginning_and_its_end():
    error = ShrinkbenchError(f"the name '{LONG}' is wrong\n; choose another")
    assert str(error).startswith("the name 'xxx")
    assert str(error).endswith("is wrong ; choose another")
    assert len(str(error)) == LONGEST
    assert one_line("a\x1b[31mb") == "a\\x1b[31mb"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("to", "code"),
    sampled([(">/dev/full", 2), (">&-", 0), (">/dev/full 2>/dev/full", 2), (">&- 2>&-", 0)], every=2),
)
def test_an_output_that_takes_nothing_is_one_sentence(to, code):
    call = CALL.format(["literature", "lint", "--json"])
    words = ["sh", "-c", f'"$0" -c "$1" {to}', sys.executable, call]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == code
    told = ["error: cannot write: No space left on device; make room, or send the output elsewhere"]
    assert done.stderr.splitlines() == (told if code and "2>" not in to else [])


def test_a_folder_that_is_gone_and_names_that_are_no_text_are_told(tmp_path):
    (tmp_path / "gone").mkdir()
    rmdir_first = "import os; os.rmdir(os.getcwd()); " + CALL.format(["status", "x"])
    done = subprocess.run(
        [sys.executable, "-c", rmdir_first], capture_output=True, text=True, check=False, cwd=tmp_path / "gone"
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: the folder that you are in cannot be used (No such file or directory); change to another\n",
    )
    done = shrinkbench("bundle", "x\udcff", "--out", tmp_path / "y\udcff.zip")
    assert (done.returncode, done.stderr) == (
        2,
        "error: 'x\\udcff' holds bytes that are no text in UTF-8; rename it\n",
    )


def test_what_an_encoding_lacks_is_written_out(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    call = [sys.executable, "-c", CALL.format(["new", "recipe", "--out", "\u2192.py"])]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.stdout == "\\u2192.py: read it, it says how to use it\n"
    assert (tmp_path / "\u2192.py").is_file()


@pytest.mark.parametrize("words", [["--out", ""], ["--out="]])
def test_an_empty_argument_names_nothing_and_a_point_where_one_is(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    for given, code in ((words, 2), (["--out", "."], 0)):
        monkeypatch.setattr(sys, "argv", ["shrinkbench", "sweep", "quickstart", "--write-plan", *given])
        if code:
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == code
            assert "an argument is empty" in capsys.readouterr().err
            assert list(tmp_path.iterdir()) == []
        else:
            main()
    assert (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("option", ["--set", "--data", "--plugin"])
def test_names_that_are_no_utf_8_are_refused_before_anything_is_stored(tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"odd\xff")
    Path(name).mkdir()
    Path(f"{name}/odd.py").write_text("")
    given = {
        "--set": f"description='{name}'",
        "--data": f"digits={name}",
        "--plugin": f"{name}/odd.py",
    }[option]
    words = ["shrinkbench", "sweep", "quickstart", "--out", "out", "--write-plan", option, given]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert r"odd\udcff" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_command_whose_words_are_no_utf_8_is_stored(monkeypatch):
    monkeypatch.setenv("SHRINKBENCH_COMMAND", os.fsdecode(b"sweep x --out odd\xff"))
    assert r"odd\\udcff" in provenance(Stopwatch(), "cpu").model_dump_json()

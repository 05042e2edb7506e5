"""Names of the report's files."""

from shrinkbench.report.tables import slug


def test_long_texts_give_names_that_a_disk_takes_and_that_differ(tmp_path):
    names = {slug(f"{letter * 3000} {end}") for letter in "x漢" for end in (1, 2)}
    assert len(names) == 4
    for name in names:
        (tmp_path / f"interactive-pairs-{name}-table.json").touch()
    assert slug("short Text") == "short-text"

"""Agreement of two people's tags, against Cohen's formula."""

import pytest

from vpr_lib.gallery.agreement import Agreement, compare_tags, list_agreement_rows


def write_tags(path, tags):
    path.write_text("query,scenario\n" + "".join(f"{query},{scenario}\n" for query, scenario in tags))
    return path


@pytest.fixture
def files(tmp_path):
    """Cohen's example of two readers of 50 proposals: 20 both yes, 5 and 10 one of them, 15 both no."""
    answers = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    return [
        write_tags(
            tmp_path / f"{reader}.csv",
            [(f"q{i}.jpg", "skyline" if answer[reader] else "ordinary") for i, answer in enumerate(answers)],
        )
        for reader in (0, 1)
    ]


def test_a_published_example(files):
    agreement = compare_tags(*files)
    assert set(agreement) == {"skyline", "ordinary"}
    *counts, kappa = agreement["skyline"]
    assert counts == [20, 5, 10, 15]
    assert kappa == pytest.approx(0.4)  # observed 0.7, by chance 0.5
    assert agreement["ordinary"][:4] == (15, 10, 5, 20)
    rows = list_agreement_rows(agreement, ("Ada", "Ben"))
    assert rows[0] == ["scenario", "both", "only Ada", "only Ben", "neither", "kappa"]
    assert ["Skyline", "20", "5", "10", "15", "0.40"] in rows


def test_only_queries_that_both_looked_at_count(tmp_path):
    first = write_tags(tmp_path / "a.csv", [("a.jpg", "skyline"), ("b.jpg", "ordinary"), ("c.jpg", "skyline")])
    second = write_tags(tmp_path / "b.csv", [("a.jpg", "skyline"), ("b.jpg", "skyline"), ("d.jpg", "skyline")])
    assert compare_tags(first, second)["skyline"][:4] == (1, 0, 1, 0)
    everything = compare_tags(first, second, [f"sub/{name}.jpg" for name in "abcde"])
    assert everything["skyline"][:4] == (1, 1, 2, 1)
    with pytest.raises(ValueError, match="no query is tagged in both"):
        compare_tags(first, write_tags(tmp_path / "c.csv", [("z.jpg", "skyline")]))
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        compare_tags(first, tmp_path / "gone.csv")


def test_kappa_is_undefined_if_both_say_the_same_of_all(tmp_path):
    path = write_tags(tmp_path / "a.csv", [("a.jpg", "skyline"), ("b.jpg", "skyline")])
    ((name, agreement),) = compare_tags(path, path).items()
    assert name == "skyline" and agreement[:4] == (2, 0, 0, 0) and agreement.kappa != agreement.kappa
    assert list_agreement_rows({name: agreement})[1][-1] == "undefined"
    assert Agreement(1, 0, 0, 1, 1.0) == Agreement(1, 0, 0, 1, 1.0)

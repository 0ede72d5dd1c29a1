"""Score files: what was written is read, by any number of ranks, and only what is of this set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvdfilter.agreement import Blocks, Collective, SoloCollective
from hvdfilter.errors import InputError
from hvdfilter.policies import score_file
from tests.agreement.worlds import all_errors, run_world

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N = 61  # no whole number of blocks or row groups
RNG = np.random.default_rng(0)
EL2N = RNG.uniform(size=N).astype(np.float32)
LEARNT = RNG.uniform(size=N) < 0.7
LABELS = RNG.integers(0, 5, N)


def written(path: Path, ranks: int = 1, group: int = 16) -> Path:
    def body(collective: Collective) -> None:
        mine = block(collective)
        columns = {"el2n": EL2N[mine], "learnt": LEARNT[mine]}
        made = {"model": "cnn", "epochs": 10, "seeds": [3, 4]}
        score_file.write(path, columns, LABELS[mine], N, made, collective, group)

    run_world(ranks, body)
    return path


def block(collective: Collective) -> slice:
    blocks = Blocks(N, collective.size)
    return slice(blocks.start(collective.rank), blocks.stop(collective.rank))


@pytest.mark.parametrize("group", [7, 16, 1000])
@pytest.mark.parametrize("ranks", [1, 3, 10])  # of ten ranks some own no sample
def test_any_ranks_read_what_any_ranks_wrote(tmp_path: Path, ranks: int, group: int) -> None:
    path = written(tmp_path / "scores.parquet", ranks, group)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]
    table = pq.read_table(path)  # as anybody's tool reads it
    assert table.column_names == ["id", "label", "el2n", "learnt"]
    assert table["id"].to_pylist() == list(range(N))
    np.testing.assert_array_equal(table["label"], LABELS)
    np.testing.assert_array_equal(table["el2n"], EL2N)
    np.testing.assert_array_equal(table["learnt"], LEARNT)
    assert pq.ParquetFile(path).num_row_groups == -(-N // group)
    for readers in (1, 2, 4, 9):
        blocks = Blocks(N, readers)
        for rank in range(readers):
            start, stop = blocks.start(rank), blocks.stop(rank)
            found = score_file.read(path, ["el2n", "learnt"], start, stop, N, LABELS[start:stop])
            np.testing.assert_array_equal(found["el2n"], EL2N[start:stop])
            np.testing.assert_array_equal(found["learnt"], LEARNT[start:stop])
            assert (found["el2n"].dtype, found["learnt"].dtype) == (np.float32, np.bool_)


def test_it_says_how_it_was_made(tmp_path: Path) -> None:
    said = score_file.made(written(tmp_path / "scores.parquet"))
    assert said["format"] == "hvdfilter-scores-1" and said["num_samples"] == N
    assert (said["model"], said["epochs"], said["seeds"]) == ("cnn", 10, [3, 4])


def test_a_rank_reads_only_row_groups_of_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "scores.parquet", group=10)
    read, genuine = [], pq.ParquetFile.read_row_group

    def noted(file, group, **options):  # type: ignore[no-untyped-def]
        read.append(group)
        return genuine(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    score_file.read(path, ["el2n"], 18, 30, N)
    assert read == [1, 2]  # ids 10 to 29


def test_rows_may_be_in_any_order(tmp_path: Path) -> None:
    path, order = tmp_path / "own.parquet", RNG.permutation(N)
    table = {"id": order, "label": LABELS[order], "mine": EL2N[order].astype(np.float64)}
    pq.write_table(pa.table(table), path, row_group_size=9)
    found = score_file.read(path, ["mine"], 8, 40, N, LABELS[8:40])
    np.testing.assert_array_equal(found["mine"], EL2N[8:40])


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "scores.parquet")
    before = score_file.read(path, ["el2n"], 0, N, N)["el2n"]
    table = pq.read_table(path).to_pydict()
    pq.write_table(pa.table({**table, "el2n": EL2N * 2}), path)
    np.testing.assert_array_equal(score_file.read(path, ["el2n"], 0, N, N)["el2n"], before * 2)


def _ids(change: Callable[[np.ndarray], object]) -> dict[str, np.ndarray]:
    ids = np.arange(N)
    change(ids)
    return {"id": ids}


def _nan() -> dict[str, np.ndarray]:
    values = EL2N.copy()
    values[50] = np.nan
    return {"el2n": values}


WRONG = {
    "holds 60 samples, but 61 are trained": {
        "id": np.arange(60),
        "label": LABELS[:60],
        "el2n": EL2N[:60],
    },
    "sample 52 is missing": _ids(lambda ids: ids.__setitem__(52, 1000)),
    "sample 40 is missing|sample 41 is there twice": _ids(lambda ids: ids.__setitem__(40, 41)),
    "the el2n of sample 50 is NaN \\(1 such": _nan(),
    f"sample 60 has label {LABELS[60] + 1}, but {LABELS[60]} in the set that is trained": {
        "label": np.where(np.arange(N) == 60, LABELS + 1, LABELS)
    },
    "1 rows have no el2n": {"el2n": [None, *EL2N[1:].tolist()]},
    "field 'el2n' holds string, not numbers": {"el2n": ["high"] * N},
    "field 'id' holds double, not numbers": {"id": np.arange(N) / 1},
}


@pytest.mark.parametrize("sentence", WRONG)
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_file_of_another_set_is_refused_with_what_is_wrong(
    tmp_path: Path, sentence: str, ranks: int
) -> None:
    path = tmp_path / "wrong.parquet"
    right = {"id": np.arange(N), "label": LABELS, "el2n": EL2N}
    pq.write_table(pa.table({**right, **WRONG[sentence]}), path)
    said = []
    for rank in range(ranks):
        blocks = Blocks(N, ranks)
        mine = slice(blocks.start(rank), blocks.stop(rank))
        try:
            score_file.read(path, ["el2n"], mine.start, mine.stop, N, LABELS[mine])
        except InputError as refused:
            said.append(str(refused))
    assert said and all("wrong.parquet: " in sentence for sentence in said)
    with pytest.raises(InputError, match=sentence):
        raise InputError(said[0])


def test_a_missing_field_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = written(tmp_path / "scores.parquet")
    with pytest.raises(InputError, match=r"has no field 'grand' \(there are: el2n, learnt\)"):
        score_file.read(path, ["grand"], 0, N, N)


def test_what_is_no_score_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.parquet cannot be read .No such file"):
        score_file.read(tmp_path / "none.parquet", ["el2n"], 0, N, N)
    (tmp_path / "text.parquet").write_text("id,label\n")
    with pytest.raises(InputError, match="text.parquet: is no parquet file, or a damaged one"):
        score_file.read(tmp_path / "text.parquet", ["el2n"], 0, N, N)


def test_a_file_that_cannot_be_written_is_every_ranks_error(tmp_path: Path) -> None:
    path = tmp_path / "no" / "scores.parquet"

    def body(collective: Collective) -> None:
        mine = block(collective)
        score_file.write(path, {"el2n": EL2N[mine]}, LABELS[mine], N, {}, collective)

    said = all_errors(3, body)
    assert all("scores.parquet cannot be written (No such file" in sentence for sentence in said)


def test_scores_of_a_wrong_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scores 'el2n' have shape \(3,\); this rank's block is"):
        score_file.write(
            tmp_path / "s.parquet", {"el2n": EL2N[:3]}, LABELS, N, {}, SoloCollective()
        )

"""Reading a table of many methods: pairs, many tests, ranks, files of cells."""

import json
import math

import pytest
import torch
from scipy import stats
from shared import gen

from metalearn_book.book.tables import sortable_table
from metalearn_book.practice.which_method_when import (
    Cell,
    cliques,
    critical_difference,
    friedman,
    holm,
    mid_ranks,
    pair_p_values,
    rank_ranges,
    read_cells,
)


def stored(folder, bed="b 5w1s", row="A", values=((75, 60), (30, 45)), **changes):
    "Write a cell as the benchmark does."
    settings = {"kind": "text", "n_way": 5, "n_query": 15, "episodes": 2,
                "seeds": len(values)}  # fmt: skip
    record = {
        "bed": bed,
        "row": row,
        "settings": settings,
        "trained": True,
        "transductive": False,
        "command": "python benchmarks/leaderboard",
        "seeds": {str(i): {"values": list(v)} for i, v in enumerate(values)},
    }
    path = folder / bed.replace(" ", "_") / f"{row}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record | changes))
    return path


def test_p_values_are_those_of_scipy():
    scores = torch.rand(5, 30, generator=gen(), dtype=torch.float64)
    p = pair_p_values(scores)
    for i in range(5):
        for j in range(5):
            if i != j:
                right = stats.ttest_rel(scores[i], scores[j]).pvalue
                assert p[i, j].item() == pytest.approx(right, rel=1e-9)
    assert (p.diagonal() == 1).all()


def test_holm_against_a_plain_loop():
    for seed in range(20):
        p = torch.rand(7, generator=gen(seed), dtype=torch.float64) ** 2
        right, last = {}, 0.0
        for place, i in enumerate(sorted(range(7), key=lambda i: float(p[i]))):
            last = max(last, min(1.0, (7 - place) * float(p[i])))
            right[i] = last
        assert holm(p).tolist() == pytest.approx([right[i] for i in range(7)])


def test_holm_keeps_the_chance_of_any_error():
    g, errors = gen(3), 0
    for _ in range(2000):
        true = torch.rand(15, generator=g, dtype=torch.float64)
        surely_false = torch.full((5,), 1e-9, dtype=torch.float64)
        errors += int((holm(torch.cat([true, surely_false]))[:15] <= 0.05).any())
    assert errors / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_rank_ranges_hold_the_ranks_of_the_means_and_turn_with_the_sign():
    scores = torch.rand(6, 40, generator=gen(1))
    scores += 0.1 * torch.arange(6)[:, None]
    up, down = rank_ranges(scores), rank_ranges(scores, higher_is_better=False)
    assert (up[:, 0] <= up[:, 1]).all() and (up >= 1).all() and (up <= 6).all()
    assert (down == 7 - up.flip(1)).all()
    order = scores.mean(1).argsort(descending=True).argsort() + 1
    assert ((up[:, 0] <= order) & (order <= up[:, 1])).all()


def test_friedman_and_mid_ranks_are_those_of_scipy():
    for seed in range(5):
        scores = torch.rand(5, 8, generator=gen(seed), dtype=torch.float64)
        scores = scores.mul(6).round()  # with ties
        chi2, f, p = friedman(mid_ranks(scores))
        right = stats.friedmanchisquare(*scores.numpy()).statistic
        assert chi2 == pytest.approx(right, rel=1e-9)
        assert f == pytest.approx(7 * chi2 / (8 * 4 - chi2)) and 0 <= p <= 1


def test_critical_differences_of_demsar():
    # Demšar (2006), Table 5a: critical values of the two-tailed Nemenyi test
    table = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 10: 3.164}
    for k, q in table.items():
        found = critical_difference(k, 1) / math.sqrt(k * (k + 1) / 6)
        assert found == pytest.approx(q, abs=1.5e-3)


def test_cliques_by_brute_force():
    for seed in range(30):
        ranks = sorted((5 * torch.rand(7, generator=gen(seed))).tolist())
        groups = {
            (i, j)
            for i in range(7)
            for j in range(i + 1, 7)
            if ranks[j] - ranks[i] < 1.2
        }
        largest = {
            g
            for g in groups
            if not any(h != g and h[0] <= g[0] and g[1] <= h[1] for h in groups)
        }
        assert set(cliques(ranks, 1.2)) == largest


def test_a_cell_is_read_as_shares_of_right_answers(tmp_path):
    stored(tmp_path)
    (cell,) = read_cells(tmp_path)
    assert cell.values.tolist() == [[1.0, 0.8], [0.4, 0.6]]
    assert cell.mean == pytest.approx(0.7)
    assert cell.spread == pytest.approx(torch.tensor([0.9, 0.5]).std().item())


def test_a_row_without_training_stands_beside_every_run():
    trained = Cell("b", "A", torch.rand(3, 50, generator=gen(), dtype=torch.float64))
    fixed = Cell("b", "B", torch.rand(1, 50, generator=gen(1), dtype=torch.float64))
    difference = trained.minus(fixed)
    assert len(difference) == 3
    assert difference.mean == pytest.approx(trained.mean - fixed.mean)
    assert fixed.minus(trained).mean == pytest.approx(-difference.mean)
    with pytest.raises(ValueError, match="can't be paired"):
        trained.minus(Cell("b", "C", trained.values[:2]))
    with pytest.raises(ValueError, match="share episodes"):
        trained.minus(Cell("other", "C", trained.values))


def test_unfinished_and_failed_cells_are_left_out(tmp_path):
    stored(tmp_path, row="whole")
    stored(tmp_path, row="failed", failed="nan")
    path = stored(tmp_path, row="half")
    record = json.loads(path.read_text())
    del record["seeds"]["1"]
    path.write_text(json.dumps(record))
    assert [c.row for c in read_cells(tmp_path)] == ["whole"]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {}},
        {"seeds": {"0": {}, "1": {}}},
        {"seeds": {"0": {"values": [75]}, "1": {"values": [75]}}},
        {"seeds": {"0": {"values": [math.nan, 1]}, "1": {"values": [1, 1]}}},
    ],
)
def test_a_damaged_cell_is_refused(tmp_path, change):
    stored(tmp_path, **change)
    with pytest.raises(ValueError, match="damaged.*remove it"):
        read_cells(tmp_path)


def test_truncated_files_and_other_settings_are_refused(tmp_path):
    path = stored(tmp_path)
    text = path.read_text()
    for n in (0, 1, len(text) // 2, len(text) - 1):
        path.write_text(text[:n])
        with pytest.raises(ValueError, match="damaged"):
            read_cells(tmp_path)
    path.write_text(text)
    record = json.loads(stored(tmp_path, row="B").read_text())
    settings = record["settings"] | {"steps": 7}
    stored(tmp_path, row="B", settings=settings)
    with pytest.raises(ValueError, match="other settings"):
        read_cells(tmp_path)
    with pytest.raises(FileNotFoundError, match="make leaderboard"):
        read_cells(tmp_path / "nowhere")


# --- the table that a reader sorts ---------------------------------------------------


def test_sortable_tables_keep_names_and_say_numbers():
    rows = [
        {"method": "TF-IDF <i>", "a": 0.5, "b": None},
        {"method": "ID", "a": math.nan, "b": 2},
    ]
    html = sortable_table(rows, "C", percent=["a"], tags={"ID": "kind"}).data[
        "text/html"
    ]
    assert "TF-IDF &lt;i&gt;" in html and "@ID@" not in html and ">ID<" in html
    assert 'data-v="0.5">50.0<' in html and 'data-v="">–<' in html
    assert 'data-all="id – 2 kind"' in html
    with pytest.raises(ValueError, match="two are called"):
        sortable_table([{"m": "x"}, {"m": "x"}])


def test_two_sortable_tables_share_no_name():
    one, two = (
        sortable_table([{"m": m, "v": 1}]).data["text/html"] for m in ("x", "y")
    )
    ident = one.split('id="sort-')[1][:8]
    assert ident not in two


def test_tables_that_look_alike_have_names_of_their_own():
    rows = [{"m": "a", "v": 1}, {"m": "b", "v": 2}]
    near = [{"m": "a", "v": 1.0000001}, {"m": "b", "v": 2}]
    tables = [sortable_table(rows), sortable_table(near), sortable_table(rows, "C"),
              sortable_table(rows, tags={"a": "more"})]  # fmt: skip
    names = {t.data["text/html"].split('id="sort-')[1][:8] for t in tables}
    assert len(names) == 4


def test_sortable_tables_sort_as_javascript_reads_numbers():
    values = [math.inf, -math.inf, torch.tensor(9.0), 10**400, None, math.nan]
    rows = [{"m": f"row {i}", "v": v} for i, v in enumerate(values)]
    html = sortable_table(rows).data["text/html"]
    keys = [part.split('"')[0] for part in html.split('data-v="')[1:]]
    assert keys == ["Infinity", "-Infinity", "9.0", "1" + "0" * 400, "", ""]
    # a column of texts: what is missing stays last there too
    html = sortable_table([{"m": "x", "v": "b"}, {"m": "y", "v": None}])
    assert '<td data-v="">–</td>' in html.data["text/html"]


def test_sortable_tables_show_what_plain_ones_show():
    a, b = (Cell("b", r, torch.rand(1, 9, generator=gen(i)))
            for i, r in enumerate("AB"))  # fmt: skip
    rows = [{"m": "x", "gain": a.minus(b), "w": torch.tensor(0.5)}]
    html = sortable_table(rows, "@ID@", percent=["gain", "w"]).data["text/html"]
    assert ">gain (points)<" in html and ">w (%)<" in html and ">50.0<" in html
    assert "<caption>@ID@</caption>" in html
    with pytest.raises(ValueError, match="no columns"):
        sortable_table([{}])
    with pytest.raises(ValueError, match="tags are texts"):
        sortable_table([{"m": "x"}], tags={"x": 3})

"""Properties of the chapter "A monitor of texts" that it does not have to show: bad
input of every kind, kills at every moment, and what is saved."""

import copy
import json
import math
import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from kills import killed_at, linux
from shared import few_intents

from metalearn_book.case_studies.alert_monitor import AlertMonitor, Item, alert_files
from metalearn_book.case_studies.alert_monitor import _charts, apparent_surge, demo
from metalearn_book.case_studies.alert_monitor import draw_items
from metalearn_book.case_studies.few_shot_classifier import FewShotClassifier
from metalearn_book.data.files import SEAL_LENGTH, write_sealed
from metalearn_book.foundations.encoders import load_encoder

START = datetime(2026, 1, 5, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)


class Known(FewShotClassifier):
    "A classifier that knows the answer: a text that begins with `bad` is bad."

    def predict(self, texts, reject=None):
        return np.array(["bad" if t.startswith("bad") else "good" for t in texts])


@pytest.fixture(scope="module")
def head():
    few = few_intents()
    labels = ["bad" if i % 2 else "good" for i in range(len(few.texts))]
    return Known(load_encoder("tiny")).fit(few.texts, labels)


def items(first: int, days: int, rate: float, seed: int = 0, factor: float = 1.0):
    "Bad and good texts of two firms; those of the first are `factor` times as many."
    rng, found = np.random.default_rng(seed), []
    for day in range(first, first + days):
        for firm, times in (("Alder", factor), ("Birch", 1.0)):
            for word in ("bad", "good"):
                n = rng.poisson(rate * (times if word == "bad" else 1))
                for i in range(n):
                    time = START + day * DAY + timedelta(minutes=int(rng.integers(600)))
                    name = f"{seed}-{day}-{firm}-{word}-{i}"
                    found.append(Item(time, name, firm, f"{word} text {name}", name))
    return sorted(found, key=lambda item: item.time)


@pytest.fixture(scope="module")
def fitted(head):
    made = AlertMonitor({"mood": head}, {"complaints": {"mood": "bad"}}, weekdays=False)
    return made.fit(items(0, 60, 2.0))


@pytest.fixture
def monitor(fitted):
    return copy.deepcopy(fitted)


@pytest.fixture(scope="module")
def surged():
    return items(60, 12, 2.0, seed=1, factor=5.0)


def test_a_surge_rings_and_names_its_texts(monitor, surged):
    alerts = monitor.update(surged)
    assert alerts and all(a.entity == "Alder" for a in alerts)
    first, own = alerts[0], {i.id for i in surged}
    assert first.since >= "2026-03-06" and first.count > first.expected
    assert {name for name, _ in first.texts} <= own
    assert all("-bad-" in name for name, _ in first.texts)
    assert first.texts[-1][1] in str(first)


def test_the_future_changes_nothing(monitor, surged):
    for cut in (10, len(surged) // 2):
        a, b = copy.deepcopy(monitor), copy.deepcopy(monitor)
        early = [x.id for x in a.update(surged[:cut])]
        later = surged[:cut] + items(72, 5, 9.0, seed=7)
        b.update(later)
        assert [x.id for x in b.pending()][: len(early)] == early


def test_equal_times_and_any_order_within_a_day(monitor, surged):
    same = [replace(i, time=i.time.replace(hour=12, minute=0)) for i in surged]
    other = sorted(same, key=lambda i: (i.time, i.text[::-1]))
    a, b = copy.deepcopy(monitor), copy.deepcopy(monitor)
    assert sorted(x.id for x in a.update(same)) == sorted(x.id for x in b.update(other))
    a.advance(START + 90 * DAY), b.advance(START + 90 * DAY)
    assert a.state_["levels"] == b.state_["levels"]


def test_one_day_is_one_day_in_every_zone(head):
    history = items(0, 30, 2.0)
    here = {"mood": head}, {"complaints": {"mood": "bad"}}
    tokyo = AlertMonitor(*here, timezone="Asia/Tokyo", weekdays=False).fit(history)
    utc = AlertMonitor(*here, weekdays=False).fit(history)
    evening = replace(history[0], time=datetime(2026, 3, 1, 20, tzinfo=timezone.utc))
    assert tokyo._day(evening) == utc._day(evening) + 1
    shifted = evening.time.astimezone(timezone(timedelta(hours=-5)))
    assert utc._day(replace(evening, time=shifted)) == utc._day(evening)


def test_the_time_of_an_alert_is_in_the_zone_of_the_monitor(monitor, surged):
    east = timezone(timedelta(hours=9))
    moved = [replace(i, time=i.time.astimezone(east)) for i in surged]
    here, there = copy.deepcopy(monitor).update(surged), monitor.update(moved)
    assert here and [(a.id, a.time) for a in here] == [(a.id, a.time) for a in there]
    assert all(a.since <= a.time[:10] for a in there)


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"entity": "Nobody"}, "unknown entity"),
        ({"text": "  "}, "blank text"),
        ({"text": "bad \ud83d"}, "half a character"),
        ({"time": START + 3 * DAY}, "time of the history"),
        ({"time": START + 61 * DAY}, "its day is closed"),
    ],
)
def test_what_can_not_be_counted(monitor, surged, wrong, word):
    monitor.update(surged)
    before = copy.deepcopy(monitor.state_)
    odd = replace(surged[-1], **({"id": "odd", "text": "bad news"} | wrong))
    good = replace(surged[-1], id="fine", text="bad one more")
    with pytest.raises(ValueError, match=word):
        monitor.update([good, odd])
    assert monitor.state_ == before  # the good one was not taken either
    monitor.on_odd = "skip"
    monitor.update([good, odd])
    assert monitor.state_["skipped"] and monitor.state_["left_out"][0][0] == "odd"
    assert monitor.state_["position"] == before["position"] + 2


def test_a_flood_of_one_text_is_one_text(monitor):
    one = items(60, 1, 2.0, seed=3)[0]
    flood = [replace(one, id=f"copy {i}", text="bad copy") for i in range(500)]
    assert monitor.update(flood) == []
    assert sum(monitor.state_["today"]) == 1
    later = replace(one, id="week", text="bad copy", time=one.time + 3 * DAY)
    monitor.update([later])
    assert sum(monitor.state_["today"]) == 0  # within repeat_days
    monitor.update([replace(later, id="late", time=one.time + 20 * DAY)])
    assert sum(monitor.state_["today"]) == 1
    assert monitor.state_["repeats"] == 500
    shout = replace(later, id="shout", text="bad, COPY!", time=one.time + 21 * DAY)
    monitor.update([shout])
    assert monitor.state_["repeats"] == 501
    marks = [replace(shout, id=c, text=c) for c in "!?"]  # no words: not the same
    monitor.update(marks)
    assert monitor.state_["repeats"] == 501
    monitor.repeat_days = None  # people say the same without copying each other
    monitor.update([replace(shout, id=f"own {i}") for i in range(3)])
    assert monitor.state_["repeats"] == 501
    assert sum(monitor.state_["today"]) == 3


def test_one_surge_is_one_alert_until_the_hold_is_over(monitor):
    stream = items(60, 30, 2.0, seed=1, factor=5.0)
    rings = [a for a in monitor.update(stream) if a.entity == "Alder"]
    days = [datetime.fromisoformat(a.time).date() for a in rings]
    assert len(rings) >= 3 and rings[0].previous == ""
    for a, b, alert in zip(days, days[1:], rings[1:]):
        assert (b - a).days > monitor.hold_days
        assert alert.previous == a.isoformat() and str(a) in str(alert)
        assert alert.since > a.isoformat()


@pytest.mark.parametrize("hold", [0, 3, 7])
@pytest.mark.parametrize("weekdays", [False, True])
def test_it_rings_on_the_days_of_the_chart(head, hold, weekdays):
    """The chart gets the counts of whole days; the monitor reads in the order of time,
    in batches."""
    made = AlertMonitor(
        {"mood": head}, {"complaints": {"mood": "bad"}}, weekdays=weekdays,
        false_alarms=30, hold_days=hold,
    ).fit(items(0, 60, 2.0))  # fmt: skip
    stream = items(60, 90, 2.0, seed=5, factor=1.6)
    rang, first = set(), made._day(stream[0])
    counts = np.zeros((2, 90), int)
    for item in stream:
        if item.text.startswith("bad"):
            counts[int(item.entity == "Birch"), made._day(item) - first] += 1
    for i in range(0, len(stream), 17):
        for a in made.update(stream[i : i + 17]):
            day = datetime.fromisoformat(a.time).date().toordinal() - first
            rang.add((int(a.entity == "Birch"), day))
    wanted = set()
    for i, chart in enumerate(made.charts_):
        rings = chart.levels(counts[i], (first - 1) % 7, hold) >= chart.limit
        wanted |= {(i, int(d)) for d in np.flatnonzero(rings)}
    assert rang == wanted and len(rang) > 3


def test_a_wrong_time_does_not_close_a_year(monitor, surged):
    monitor.update(surged)
    far = replace(surged[-1], id="far", text="bad far", time=START + 120 * DAY)
    monitor.on_odd = "skip"
    monitor.update([far, replace(surged[-1], id="now", text="bad now")])
    assert list(monitor.state_["skipped"]) == [
        "more than 31 days ahead; call advance first if its time is right"
    ]
    assert monitor.state_["today"] != [0, 0]  # the one of today was counted
    monitor.advance(START + 120 * DAY)  # nothing came for so long: that is right
    monitor.update([replace(far, id="far again")])
    assert sum(monitor.state_["today"]) == 1
    with pytest.raises(ValueError, match="more than a year ahead"):
        monitor.advance(START + 999 * DAY)


def test_the_first_text_may_come_long_after_the_history(monitor):
    late = Item(START + 200 * DAY, "1", "Alder", "bad 1")
    with pytest.raises(ValueError, match="31 days ahead"):
        monitor.update([late])
    monitor.advance(START + 200 * DAY)
    monitor.update([late])
    assert monitor.state_["levels"] == [0, 0] and monitor.state_["outages"] == []


def test_a_text_need_not_name_its_entity(monitor):
    monitor.update([Item(START + 61 * DAY, "1", "Alder", "bad luck for them")])
    assert monitor.state_["today"] == [1, 0]


def test_gaps_of_a_history(head):
    here = {"mood": head}, {"complaints": {"mood": "bad"}}
    full = items(0, 60, 9.0)
    gap = [i for i in full if not 20 <= (i.time - START).days < 30]
    whole, other = (AlertMonitor(*here, weekdays=False).fit(h) for h in (full, gap))
    assert len(other.outages_) == 10 and whole.outages_ == []
    assert other.charts_[0].rates[0] == pytest.approx(
        whole.charts_[0].rates[0], rel=0.1
    )
    wrong = replace(full[0], id="wrong", time=full[0].time - 400 * DAY)
    with pytest.raises(ValueError, match="gap of 400 days"):
        AlertMonitor(*here).fit([*full, wrong])


def test_an_office_that_is_closed_on_sundays_has_no_outage(head):
    open_days = [i for i in items(0, 70, 9.0) if i.time.weekday() != 6]
    made = AlertMonitor({"mood": head}, {"c": {"mood": "bad"}}).fit(open_days)
    assert made.outages_ == [] and made.texts_a_day_[6] == 0
    made.update([i for i in items(70, 14, 9.0, 2) if i.time.weekday() != 6])
    assert made.state_["outages"] == []


def test_a_replay_changes_nothing_but_the_position(monitor, surged):
    monitor.update(surged)
    before = copy.deepcopy(monitor.state_)
    assert monitor.update(surged[-40:]) == []
    free = {"position": 0, "repeats": 0}
    assert monitor.state_ | free == before | free
    assert monitor.state_["repeats"] == before["repeats"] + 40  # none lost in silence


def test_a_quiet_time_lowers_the_level_and_an_outage_does_not(head):
    busy = [replace(i, text="good " + i.text) for i in items(0, 40, 9.0)]
    mixed = [i if n % 9 else replace(i, text="bad " + i.id)
             for n, i in enumerate(busy)]  # fmt: skip
    made = AlertMonitor({"mood": head}, {"complaints": {"mood": "bad"}}, weekdays=False)
    made.fit(mixed)
    assert min(made.texts_a_day_) > 14
    day = [Item(START + 41 * DAY, f"{i}", "Alder", f"bad {i}") for i in range(7)]
    made.update(day)
    made.advance(START + 42 * DAY)
    level = made.state_["levels"][0]
    made.advance(START + 46 * DAY)  # nothing at all for four days
    assert level > 0 and made.state_["levels"][0] == level
    assert len(made.state_["outages"]) == 4
    made.update([Item(START + 46 * DAY, "x", "Birch", "good to hear")])
    made.advance(START + 47 * DAY)
    assert made.state_["levels"][0] < level


def test_times_need_a_zone():
    with pytest.raises(ValueError, match="time zone"):
        Item(datetime(2026, 1, 1), "1", "Alder", "hello")
    with pytest.raises(ValueError, match="time zone"):
        Item("2026-01-01", "1", "Alder", "hello")
    with pytest.raises(ValueError, match="time zone"):
        Item(datetime(9999, 12, 31, tzinfo=timezone.utc), "1", "Alder", "hello")


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"heads": {}}, "heads must be a dict"),
        ({"heads": {"mood": "x"}}, "must be a classifier"),
        ({"watch": {"a": {"mood": "awful"}}}, "it has the labels"),
        ({"watch": {"a": {"tone": "bad"}}}, "the heads are"),
        ({"surge": 1.0}, "surge must be"),
        ({"false_alarms": math.nan}, "false_alarms must be"),
        ({"timezone": "Nowhere/Land"}, "timezone must be"),
        ({"on_odd": "ignore"}, "on_odd must be one of"),
        ({"repeat_days": -1}, "repeat_days must be"),
        ({"hold_days": 1.5}, "hold_days must be"),
    ],
)
def test_settings_that_are_refused(head, wrong, word):
    given = {"heads": {"mood": head}, "watch": {"a": {"mood": "bad"}}} | wrong
    with pytest.raises(ValueError, match=word):
        AlertMonitor(**given)


def test_a_history_that_is_too_short_or_blank(head):
    made = AlertMonitor({"mood": head}, {"a": {"mood": "bad"}})
    with pytest.raises(ValueError, match="not fitted"):
        made.update([])
    with pytest.raises(ValueError, match="14 or more"):
        made.fit(items(0, 5, 2.0))
    with pytest.raises(ValueError, match="at least 1"):
        made.fit([])
    some = items(0, 20, 2.0)
    with pytest.raises(ValueError, match="blank text"):
        made.fit([*some, replace(some[0], id="b", text="\u200b")])


def run(monitor, path, folder, stream, batch=25):
    "What a program does: go on from the state, feed, deliver."
    monitor.keep_state(path)
    send = alert_files(folder)
    monitor.deliver(send)
    while (at := monitor.state_["position"]) < len(stream):
        monitor.update(stream[at : at + batch])
        monitor.deliver(send)


@linux
def test_no_alert_is_lost_or_sent_twice_by_a_kill(fitted, surged, tmp_path):
    wanted = [a.id for a in copy.deepcopy(fitted).update(surged)]
    assert len(wanted) >= 2
    n, kills, base = 1, 0, copy.deepcopy(fitted)
    run(copy.deepcopy(base), tmp_path / "s", tmp_path / "a", surged)  # imports all
    while True:
        here = tmp_path / str(n)
        here.mkdir()
        path, folder = here / "state", here / "alerts"
        one = copy.deepcopy(base)
        killed = killed_at(n, lambda: run(one, path, folder, surged))
        sent = {p.name: p.read_bytes() for p in folder.glob("[!.]*.json")}
        again = copy.deepcopy(base)
        run(again, path, folder, surged)
        found = {p.name: p.read_bytes() for p in folder.glob("*.json")}  # no leftovers
        assert sorted(found) == sorted(f"{name}.json" for name in wanted), n
        assert all(found[k] == v for k, v in sent.items())  # none written again
        assert again.state_["sent"] <= len(wanted) and not again.pending()
        kills += killed
        if not killed:
            break
        n += 1 if n < 30 else 3
    assert kills > 30


def test_a_failed_write_takes_nothing(monitor, surged, tmp_path, monkeypatch):
    monitor.keep_state(tmp_path / "state")
    before = copy.deepcopy(monitor.state_)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk is full"):
        monitor.update(surged)
    assert monitor.state_ == before
    monkeypatch.undo()
    assert monitor.update(surged)


def test_an_alert_that_could_not_be_sent_stays(monitor, surged, tmp_path):
    monitor.keep_state(tmp_path / "state")
    n = len(monitor.update(surged))

    def broken(alert):
        raise ConnectionError("no network")

    with pytest.raises(ConnectionError):
        monitor.deliver(broken)
    assert len(monitor.pending()) == n
    got = []
    assert monitor.deliver(got.append) == n and len({a.id for a in got}) == n
    assert monitor.deliver(got.append) == 0


def test_one_bit_is_found(monitor, surged, tmp_path):
    path = tmp_path / "state"
    monitor.keep_state(path).update(surged)
    content = bytearray(path.read_bytes())
    for at in (5, len(content) // 2, len(content) - 20):
        bad = bytearray(content)
        bad[at] ^= 1
        path.write_bytes(bad)
        with pytest.raises(RuntimeError):
            copy.deepcopy(monitor).keep_state(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RuntimeError, match="can't be read"):
        copy.deepcopy(monitor).keep_state(path)


def test_another_configuration_is_refused(head, monitor, surged, tmp_path):
    path = tmp_path / "state"
    monitor.keep_state(path).update(surged)
    for name, value in (
        ("surge", 3.0),
        ("repeat_days", 2),
        ("hold_days", 2),
        ("false_alarms", 9.0),
    ):
        other = AlertMonitor(
            {"mood": head},
            {"complaints": {"mood": "bad"}},
            **({"weekdays": False} | {name: value}),
        ).fit(items(0, 60, 2.0))
        with pytest.raises(RuntimeError, match=name):
            other.keep_state(path)
    assert json.loads(path.read_bytes()[:-SEAL_LENGTH])["state"][
        "alerts"
    ]  # nothing lost


def test_a_budget_that_no_chart_can_keep(head):
    given = {"mood": head}, {"complaints": {"mood": "bad"}}
    for wrong in (300.0, 1e-9):
        made = AlertMonitor(*given, false_alarms=wrong)
        with pytest.raises(ValueError, match=f"false_alarms={wrong:g} a year"):
            made.fit(items(0, 30, 2.0))
        with pytest.raises(ValueError, match="not fitted"):
            made.update([])


def test_two_monitors_on_one_state(fitted, surged, tmp_path):
    """The second that writes is refused and takes nothing; after it has taken the file
    up it goes on, and together they find what one finds."""
    wanted = [a.id for a in copy.deepcopy(fitted).update(surged)]
    path, cut = tmp_path / "state", len(surged) // 2
    one, two = copy.deepcopy(fitted), copy.deepcopy(fitted)
    one.keep_state(path), two.keep_state(path)
    one.update(surged[:cut])
    before = copy.deepcopy(two.state_)
    with pytest.raises(RuntimeError, match="written by another monitor"):
        two.update(surged[:cut])
    assert two.state_ == before
    two.keep_state(path).update(surged[cut:])
    with pytest.raises(RuntimeError, match="written by another monitor"):
        one.deliver(lambda alert: None)
    assert [a.id for a in two.pending()] == wanted
    path.unlink()  # whoever removes the file loses nothing of a monitor that runs
    two.advance(START + 80 * DAY)
    assert [a.id for a in copy.deepcopy(fitted).keep_state(path).pending()] == wanted


def test_two_threads_on_one_monitor(fitted, surged):
    monitor = copy.deepcopy(fitted)
    read = monitor._series_of

    def slow(texts):
        if len(texts) < 20:  # the other thread comes first
            monitor._series_of = read
            monitor.update(surged)
        return read(texts)

    monitor._series_of = slow
    with pytest.raises(RuntimeError, match="another thread"):
        monitor.update(surged[:5])
    assert monitor.state_["position"] == len(surged)


@pytest.mark.parametrize("change", [
    lambda c: c["state"].pop("levels"), lambda c: c["state"]["levels"].append(1),
    lambda c: c.pop("state"), lambda c: c.update(state=[]),
])  # fmt: skip
def test_a_state_that_is_none(fitted, tmp_path, change):
    path = tmp_path / "state"
    copy.deepcopy(fitted).keep_state(path)
    content = json.loads(path.read_bytes()[:-SEAL_LENGTH])
    change(content)
    write_sealed(path, json.dumps(content).encode())
    with pytest.raises(RuntimeError, match="holds no state"):
        copy.deepcopy(fitted).keep_state(path)


def test_save_and_load(monitor, surged, tmp_path):
    monitor.save(tmp_path / "m")
    monitor.save(tmp_path / "m")  # in place of itself
    again = AlertMonitor.load(tmp_path / "m")
    again.heads = monitor.heads  # a Known head is saved as the classifier that it is
    assert again.charts_ == monitor.charts_ and again.series_ == monitor.series_
    assert again.outages_ == monitor.outages_ and again._config() == monitor._config()
    path = tmp_path / "state"
    monitor.keep_state(path).update(surged[:50])
    again.keep_state(path)
    assert again.state_["position"] == 50
    monitor._path = None  # two on one file are refused
    assert [a.id for a in again.update(surged[50:])] == [
        a.id for a in monitor.update(surged[50:])
    ]
    with pytest.raises(FileNotFoundError):
        AlertMonitor.load(tmp_path / "nothing")


def test_weekdays_are_found(head):
    rng, found = np.random.default_rng(0), []
    for day in range(84):
        for i in range(rng.poisson(0.4 if day % 7 > 4 else 3.0)):
            time = START + day * DAY
            found.append(Item(time, f"{day}-{i}", "Alder", f"bad {day} {i}"))
    made = AlertMonitor({"mood": head}, {"a": {"mood": "bad"}}).fit(found)
    rates = made.charts_[0].rates
    assert len(rates) == 7 and max(rates[5:]) < 0.4 * min(rates[:5])


@pytest.mark.parametrize("hold", [0, 7])
def test_charts_spend_the_budget_together(hold):
    "Never more than it, and of twenty unequal series nearly all of it."
    rates = np.linspace(0.5, 1.5, 20)[:, None]
    charts = _charts(rates, 2.0, 500.0, 0.0, 365, hold)
    alarms = [1 / (1 / c._expected_rate(365) + hold) for c in charts]
    assert 0.99 < sum(alarms) * (500 + hold) / 20 <= 1 + 1e-9
    [alone] = _charts(rates[:1], 2.0, 500.0, 0.0, 365, hold)
    assert 1 / alone._expected_rate(365) >= 500


def test_the_apparent_surge():
    assert apparent_surge(3, 1.0) == 3 and apparent_surge(3, 0.0) == 1
    with pytest.raises(ValueError, match="precision"):
        apparent_surge(3, 1.1)


@pytest.mark.parametrize(
    "texts, surge, word",
    [({"a": []}, None, "no texts"), ({"a": ["x"]}, ("F", "a", 2.0, 1), "surge must be"),
     ({"a": ["x"]}, ("E", "b", 2.0, 1), "surge must be"),
     ({"a": ["x"]}, ("E", "a"), "surge must be")],
)  # fmt: skip
def test_draw_items_refuses_a_surge_of_nobody(texts, surge, word):
    given = {"a": 1.0}, ["E"], START.date(), 3, np.random.default_rng(0)
    with pytest.raises(ValueError, match=word):
        draw_items(texts, *given, surge)


def test_draw_items_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="kinds"):
        draw_items({"a": ["x"]}, {"b": 1.0}, ["E"], START.date(), 3,
                   np.random.default_rng(0))  # fmt: skip


def test_the_demonstration_rings(capsys):
    demo()
    out = capsys.readouterr().out
    assert "ALERT" in out and "Birch Telecom" in out

"""The gate by itself: results and a clock go in, tasks come out. No network, no process, no waiting."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import download
from download import DONE, DOUBT, FAILED, GONE, LATER, STOP, THROTTLED, Result, Segment, Task, Traffic

NETWORK, BOT, RATE = (DOUBT, 'network'), (THROTTLED, 'bot check'), (THROTTLED, 'rate limit')


class NeverEnds(Exception):
    pass


class Sky:
    """Traffic over made-up rows, under a clock of our own."""

    def __init__(self, rows: int, *flags: str, proxies: tuple[str, ...] = (), control: bool = False) -> None:
        made = download.read_settings(['--retry-pause', '4', *flags])
        made.routes, made.cookies = dict.fromkeys(proxies or [''], ''), ''
        made.num_processes = made.num_processes or 8
        segments = (Segment(f'{n:011}', 0, 10, (), 'eval') for n in range(rows))
        self.now, self.flying, self.settled = 1000.0, list[Task](), list[Result]()
        known = Segment('known______', 0, 10, (), 'eval') if control else None
        self.traffic = Traffic(made, segments, self.settled.append, known)

    def fill(self) -> list[Task]:
        """Start all that may start now."""
        while task := self.traffic.next(self.now):
            self.flying.append(task)
        return self.flying

    def land(self, verdict: str, reason: str = '', task: Task | None = None, **more: bool) -> None:
        """One comes back: the oldest, unless another is named."""
        task = task or self.flying[0]
        self.flying.remove(task)
        self.traffic.see(task, Result(task.segment, verdict, reason or verdict, 'words', **more), self.now)

    def land_all(self, verdict: str, reason: str = '') -> None:
        for task in list(self.flying):
            self.land(verdict, reason, task)

    def wait_for_probe(self) -> float:
        """Let time pass until one row tries again; returns how many s that took."""
        began = self.now
        while not self.fill():
            self.now += 0.5
            assert self.now < began + 10_000, 'no row ever tries again'
        return self.now - began

    @property
    def gate(self) -> download.Gate:
        return next(iter(self.traffic.gates.values()))

    def run(self, nature: object, weather: object = None, limit: float = 1e6, seconds: tuple[float, float] = (0.5, 3)) -> None:
        """Go on to the end: `weather(now, route)` says what meets a task, else `nature(ytid)` does."""
        due = {}
        while not self.traffic.over:
            if self.now > limit:
                raise NeverEnds
            for task in self.fill():
                due.setdefault(task, self.now + random.uniform(*seconds))
            for task in [task for task, when in due.items() if when <= self.now]:
                del due[task]
                natural, met = nature(task.segment.ytid), weather and weather(self.now, task.route)
                spared = met and met[1].startswith('media') and natural[0] in (GONE, LATER)  # YouTube's word needs no media
                self.land(*(natural if spared or not met else met), task=task)
            self.now = max(self.now + 0.01, min(due.values(), default=self.now + 10))


def everything_works(_: str) -> tuple[str, str]:
    return DONE, DONE


def test_it_begins_modestly_and_fills_the_pool_within_seconds() -> None:
    sky = Sky(100, '--num-processes', '32')
    assert len(sky.fill()) == 4
    rounds = 0
    while len(sky.fill()) < 32:
        sky.land_all(DONE)
        rounds += 1
    assert rounds <= 4
    for _ in range(50):
        sky.land(DONE)
        assert len(sky.fill()) <= 32


@pytest.mark.parametrize(
    ('verdict', 'reason'), [BOT, RATE, (THROTTLED, 'captcha'), (THROTTLED, 'blocked'), (THROTTLED, 'cookies')]
)
def test_a_refusal_closes_it_and_charges_nobody(verdict: str, reason: str) -> None:
    sky = Sky(100, '--num-processes', '8')
    for _ in range(8):
        sky.fill()
        sky.land(DONE)
    first = sky.fill()[0].segment
    sky.land(verdict, reason)
    flying = len(sky.flying)
    assert len(sky.fill()) == flying, 'nothing new starts'
    sky.land(DONE)
    sky.land_all(verdict, reason)
    assert not sky.fill()
    assert len(sky.settled) == 9
    assert reason in sky.traffic.weather(sky.now)
    sky.wait_for_probe()
    assert len(sky.flying) == 1
    assert sky.flying[0].probe
    assert not sky.flying[0].cheap
    sky.land(DONE)
    assert len(sky.fill()) == 4, 'half of what it was'
    for _ in range(4):
        sky.land(DONE)
    assert len(sky.fill()) == 4, 'and it grows more slowly now'
    for _ in range(2):
        sky.land(DONE)
    assert len(sky.fill()) == 5
    assert first.ytid in {result.segment.ytid for result in sky.settled} | {task.segment.ytid for task in sky.flying}
    assert {task.segment.tries for task in sky.flying} == {0}
    assert not sky.traffic.weather(sky.now)


@pytest.mark.parametrize(
    ('reason', 'flags', 'pauses'),
    [
        ('bot check', [], [60, 120, 240, 480, 960, 1920, 3600, 3600]),
        ('rate limit', [], [1800, 3600, 3600]),
        ('rate limit', ['--longest-pause', '100'], [100, 100]),
        ('captcha', ['--pause', '1', '--longest-pause', '3'], [1, 2, 3, 3]),
    ],
    ids=['doubling', 'a rate limit is long', 'but not longer than wanted', 'as set'],
)
def test_pauses(reason: str, flags: list[str], pauses: list[float]) -> None:
    sky = Sky(100, *flags)
    sky.fill()
    sky.land_all(THROTTLED, reason)
    waited = []
    for pause in pauses:
        waited.append(sky.wait_for_probe())
        assert 0.8 * pause - 0.5 <= waited[-1] <= 1.2 * pause + 0.5
        assert len(sky.flying) == 1
        sky.land(THROTTLED, reason)
    assert len(pauses) < 8 or abs(waited[-1] - waited[-2]) > 1, 'jittered'
    sky.wait_for_probe()
    sky.land(GONE)
    sky.fill()
    sky.land(THROTTLED, 'captcha')
    sky.land_all(DONE)
    assert sky.wait_for_probe() <= 1.2 * min(60, sky.traffic.settings.longest_pause, sky.traffic.settings.pause) + 0.5


def test_the_network_is_down_when_every_row_in_flight_fails() -> None:
    sky = Sky(100, '--num-processes', '4')
    tried = {task.segment.ytid for task in sky.fill()}
    sky.land_all(*NETWORK)
    assert not sky.fill()
    assert not sky.settled
    sky.wait_for_probe()
    assert sky.flying[0].segment.ytid not in tried, 'a row of which nothing bad is known'
    sky.land(DONE)
    again = [task.segment for task in sky.fill()]
    assert {segment.ytid for segment in again} <= tried
    assert {segment.tries for segment in again} == {0}


def test_one_row_that_fails_while_others_succeed_is_at_fault() -> None:
    sky = Sky(100, '--num-processes', '4')
    bad = sky.fill()[0].segment
    sky.land(*NETWORK)
    for _ in range(20):
        sky.land(DONE)
        assert len(sky.fill()) >= 3
    sky.now += 10
    sky.land(DONE)
    assert bad._replace(tries=1) in [task.segment for task in sky.fill()]


def test_media_403_across_many_videos_closes_it_though_some_succeed() -> None:
    sky, random_ = Sky(1000, '--num-processes', '8'), random.Random(1)
    while not sky.gate.why:
        sky.fill()
        sky.land(*((DOUBT, 'media 403') if random_.random() < 0.7 else (DONE, DONE)))
        assert len(sky.settled) < 100
    assert not [result for result in sky.settled if result.verdict != DONE]


@pytest.mark.parametrize('reason', ['media 403', 'media'])
def test_a_word_of_youtube_says_nothing_about_its_media(reason: str) -> None:
    """Rows that are gone are answered all through media weather; the others must not pay for that."""
    sky, dice = Sky(1000, '--num-processes', '8'), random.Random(2)
    gone = {f'{n:011}' for n in range(1000) if dice.random() < 0.15}
    sky.run(
        lambda ytid: (GONE, 'private') if ytid in gone else (DONE, DONE),
        lambda now, _: (DOUBT, reason) if 1030 < now < 1900 else None,
    )
    assert Counter(result.status for result in sky.settled) == {DONE: 1000 - len(gone), GONE: len(gone)}
    assert sky.gate.cheap, 'and the cheap request is not to blame'


def test_rows_that_failed_before_do_not_keep_a_rerun_from_the_others() -> None:
    sky = Sky(200, '--num-processes', '4', control=True)
    sky.run(lambda ytid: (FAILED, 'other') if ytid < f'{60:011}' else (DONE, DONE))
    assert Counter(result.status for result in sky.settled) == {FAILED: 60, DONE: 140}


def test_the_known_clip_may_be_gone_itself() -> None:
    sky = Sky(6, control=True)
    sky.run(
        lambda ytid: (FAILED, 'no format') if ytid.startswith('known') else (DONE, DONE),
        lambda now, _: NETWORK if now < 1500 else None,
    )
    assert Counter(result.status for result in sky.settled) == {DONE: 6}


def test_a_probe_whose_worker_dies_tells_nothing() -> None:
    sky = Sky(20)
    sky.fill()
    sky.land_all(THROTTLED, 'captcha')
    sky.wait_for_probe()
    sky.land(FAILED, download.DIED)
    assert len(sky.fill()) == 1
    assert sky.flying[0].probe
    assert 'captcha' in sky.traffic.weather(sky.now)


def test_every_route_has_its_turn() -> None:
    sky = Sky(200, '--num-processes', '4', proxies=tuple('abcdefghij'))
    used = Counter()
    for _ in range(40):
        while len(sky.flying) < 4:
            sky.flying.append(sky.traffic.next(sky.now))
            used[sky.flying[-1].route] += 1
            sky.now += 0.1
        sky.land(DONE)
    assert set(used) == set('abcdefghij')


@pytest.mark.parametrize('share', [0.05, 0.3])
def test_a_few_bad_rows_do_not_close_it(share: float) -> None:
    sky = Sky(300, '--num-processes', '8')
    random.seed(3)
    bad = {f'{n:011}' for n in range(20, 300) if random.random() < share}
    sky.run(lambda ytid: NETWORK if ytid in bad else (DONE, DONE))
    assert {result.segment.ytid for result in sky.settled if result.verdict != DONE} == bad
    assert Counter(result.segment.tries for result in sky.settled if result.verdict != DONE) == {3: len(bad)}


@pytest.mark.parametrize('bad', [1, 2, 5])
@pytest.mark.parametrize('control', [True, False], ids=['a rerun', 'after others'])
def test_rows_that_always_fail_end_the_run_all_the_same(bad: int, control: bool) -> None:
    """Nothing else is left to tell rows from weather but a clip that is there already."""
    sky = Sky(bad if control else bad + 30, control=control)
    sky.run(lambda ytid: (DONE, DONE) if ytid.startswith('known') or int(ytid) >= bad else NETWORK)
    assert sum(result.verdict == DOUBT for result in sky.settled) == bad
    assert len({result.segment.ytid for result in sky.settled}) == len(sky.settled) == (bad if control else bad + 30)


def test_a_lone_row_is_charged_for_its_failures() -> None:
    sky = Sky(1)
    sky.run(lambda _: NETWORK, limit=1100)
    assert [result.verdict for result in sky.settled] == [DOUBT]


def test_a_row_that_alone_meets_a_bot_check_ends_too() -> None:
    sky = Sky(30)
    sky.run(lambda ytid: BOT if ytid == f'{7:011}' else (DONE, DONE))
    assert Counter(result.status for result in sky.settled) == {DONE: 29, FAILED: 1}
    assert sky.now < 1000 + 900, 'and soon'


def test_a_last_row_outlasts_a_dead_network() -> None:
    sky = Sky(2)
    sky.run(everything_works, lambda now, _: NETWORK if 1001 < now < 90_000 else None)
    assert [result.verdict for result in sky.settled] == [DONE, DONE]


def test_the_hour_has_a_budget() -> None:
    sky = Sky(25, '--per-hour', '10', '--num-processes', '4')
    starts = []
    while not sky.traffic.over:
        starts += [sky.now] * len(sky.fill())
        sky.land_all(DONE)
        if len(starts) % 10 == 0 and not sky.traffic.over:
            assert '10 rows an hour' in sky.traffic.weather(sky.now)
        sky.now += 60
    assert max(sum(0 <= then - start < 3600 for then in starts) for start in starts) == 10
    assert len(starts) == len(sky.settled) == 25
    assert sky.now < 1000 + 3 * 3600


def test_routes_are_used_side_by_side_and_a_closed_one_hands_its_rows_over() -> None:
    sky = Sky(100, '--num-processes', '30', proxies=('a', 'b', 'c'))
    assert Counter(task.route for task in sky.fill()) == {'a': 4, 'b': 4, 'c': 4}
    of_a = [task for task in sky.flying if task.route == 'a']
    for task in of_a:
        sky.land(*NETWORK, task=task)
    sky.fill()
    assert '1 of 3 routes: network' in sky.traffic.weather(sky.now)
    sky.land_all(DONE)
    routes = {task.segment: task.route for task in sky.fill()}
    assert 'a' not in routes.values()
    assert {routes[task.segment] for task in of_a} <= {'b', 'c'}
    sky.run(everything_works, lambda now, route: NETWORK if route == 'a' else None)
    assert Counter(result.verdict for result in sky.settled) == {DONE: 100}


@pytest.mark.parametrize('proxies', [(), ('a', 'b')], ids=['one route', 'two routes'])
def test_giving_up(proxies: tuple[str, ...]) -> None:
    sky = Sky(100, '--give-up-after', '1000', proxies=proxies)
    sky.run(everything_works, lambda now, route: BOT if now > 1010 and route != 'b' else None, limit=3000 if not proxies else 1e5)
    assert bool(sky.traffic.stop) == (not proxies)
    if not proxies:
        assert 2000 < sky.now < 2200
    assert {result.verdict for result in sky.settled} == {DONE}


def test_it_never_gives_up_by_itself() -> None:
    sky = Sky(20)
    sky.run(everything_works, lambda now, _: BOT if 1010 < now < 300_000 else None)
    assert Counter(result.verdict for result in sky.settled) == {DONE: 20}


def test_a_knock_has_it_tried_at_once() -> None:
    sky = Sky(20)
    sky.fill()
    sky.land_all(THROTTLED, 'cookies')
    assert not sky.fill()
    sky.traffic.knock(sky.now)
    assert len(sky.fill()) == 1


def test_the_cheap_request_is_given_up_when_it_alone_fails() -> None:
    sky = Sky(20, '--num-processes', '1')
    seen = []
    while sky.fill():
        seen.append(sky.flying[0].cheap)
        sky.land(DONE, cheap_failed=sky.flying[0].cheap)
    assert seen == [True] * 5 + [False] * 15


def test_the_cheap_request_is_kept_when_it_fails_now_and_then() -> None:
    sky = Sky(60, '--num-processes', '1')
    for n in range(60):
        assert sky.fill()[0].cheap
        sky.land(DONE, cheap_failed=n % 5 > 0)


def test_a_death_is_charged_to_its_row_alone_and_three_are_enough() -> None:
    sky = Sky(30, '--num-processes', '4', '--retries', '9')

    def nature(ytid: str) -> tuple[str, str]:
        return (FAILED, download.DIED) if ytid == f'{5:011}' else (DONE, DONE)

    while not sky.traffic.over:
        for task in list(sky.fill()):
            verdict, reason = nature(task.segment.ytid)
            sky.flying.remove(task)
            segment = task.segment._replace(deaths=task.segment.deaths + (reason == download.DIED))
            sky.traffic.see(task, Result(segment, verdict, reason), sky.now)
        sky.now += 1
    (failed,) = [result for result in sky.settled if result.verdict == FAILED]
    assert (failed.segment.deaths, failed.reason) == (3, 'worker died')
    assert len(sky.settled) == 30


def test_what_fails_for_every_row_on_its_own_stops_the_run() -> None:
    sky = Sky(100, '--num-processes', '4')
    sky.run(lambda _: (FAILED, 'unexpected'))
    assert re.search(r'^1\d rows failed one after the other \(unexpected', sky.traffic.stop)


def test_a_full_disk_stops_it_and_its_rows_stay_as_they_were() -> None:
    sky = Sky(100)
    sky.fill()
    sky.land(STOP, 'system')
    sky.land_all(DONE)
    assert not sky.fill()
    assert sky.traffic.over
    assert 'system' in sky.traffic.stop
    assert {result.verdict for result in sky.settled} == {DONE}


WEATHER = [NETWORK, BOT, RATE, (DOUBT, 'media 403'), (DOUBT, 'no format'), None, None]
NATURE = [(DONE, DONE)] * 6 + [(GONE, 'private'), (LATER, 'live'), NETWORK, BOT, (FAILED, 'other')]


@settings(max_examples=100)
@given(
    seed=st.integers(0, 1 << 30),
    rows=st.integers(1, 60),
    processes=st.integers(1, 12),
    routes=st.integers(1, 3),
    windows=st.lists(st.tuples(st.floats(0, 3000), st.floats(0, 3000), st.sampled_from(WEATHER), st.integers(0, 3)), max_size=8),
    budget=st.sampled_from(['none', '5', '100']),
    control=st.booleans(),
)
def test_whatever_the_weather_every_row_is_settled_once(
    seed: int, rows: int, processes: int, routes: int, windows: list, budget: str, control: bool
) -> None:
    """The end state is that of the fault-free run: weather leaves no trace in what becomes of a row."""
    random.seed(seed)
    natures = [random.choice(NATURE) for _ in range(rows)]
    proxies = tuple('abc'[:routes])
    sky = Sky(rows, '--num-processes', str(processes), '--per-hour', budget, proxies=proxies, control=control)

    def nature(ytid: str) -> tuple[str, str]:
        return (DONE, DONE) if ytid.startswith('known') else natures[int(ytid)]

    def weather(now: float, route: str) -> tuple[str, str] | None:
        met = [what for start, length, what, where in windows if start <= now - 1000 < start + length and route in 'abc'[where:]]
        return next((what for what in met if what), None)

    nothing_answers = not control and not any(verdict == DONE for verdict, _ in natures)
    try:
        sky.run(nature, weather, limit=1000 + 200_000)
    except NeverEnds:
        assert nothing_answers, 'only where YouTube never answered at all may it wait for ever'
        return
    if sky.traffic.stop:
        assert sum(verdict in (FAILED, THROTTLED) for verdict, _ in natures) >= 10
        return
    became = {int(result.segment.ytid): (result.verdict, result.reason) for result in sky.settled}
    assert len(became) == len(sky.settled) == rows
    for n, nature_ in enumerate(natures):
        if nature_[0] in (DONE, GONE):
            assert became[n] == nature_
        else:
            assert became[n][0] not in (DONE, GONE)

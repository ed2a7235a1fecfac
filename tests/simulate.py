"""Simulated YouTubes and a simulated clock: what the pace gets of what there is, as bench.py --pace prints it."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from types import SimpleNamespace

import download
from download import DONE, GONE, HOUR, THROTTLED, Pace, Result, Segment, Task

DAY = 24 * HOUR


def settings(**more: float) -> SimpleNamespace:
    made = {'pause': 60, 'longest_pause': 3600, 'retries': 3, 'retry_pause': 4, 'num_processes': 8}
    return SimpleNamespace(**{'per_hour': None, 'give_up_after': 0, 'cookies': '', 'ydl_opts': {}, **made, **more})


def row(ytid: str) -> Segment:
    return Segment(ytid, 0, 10, 'eval', id=f'id_{ytid}')


class YouTube:
    """Grants so many requests in any rolling hour; may block for an hour after a refusal, or halve at noon."""

    def __init__(self, limit: int, blocks: bool = False, halves: bool = False, extends: bool = False) -> None:
        self.limit, self.blocks, self.halves, self.extends = limit, blocks, halves, extends
        self.granted, self.blocked, self.refusals, self.requests = deque[float](), 0.0, 0, 0

    def ask(self, now: float) -> bool:
        self.requests += 1
        while self.granted and self.granted[0] <= now - HOUR:
            self.granted.popleft()
        limit = self.limit // 2 if self.halves and now % DAY >= DAY / 2 else self.limit
        if len(self.granted) < limit and now >= self.blocked:
            self.granted.append(now)
            return True
        self.refusals += 1
        if self.blocks and (now >= self.blocked or self.extends):
            self.blocked = now + HOUR
        return False

    def best(self, days: float) -> float:
        """Rows of a run that knows the limit."""
        return self.limit * 24 * days * (0.75 if self.halves else 1)


class Windows:
    """Grants 40 requests, then refuses all for 5 s, and so on."""

    def __init__(self) -> None:
        self.left, self.closed, self.refusals, self.requests = 40, 0.0, 0, 0

    def ask(self, now: float) -> bool:
        self.requests += 1
        if now < self.closed:
            self.refusals += 1
            return False
        self.left -= 1
        if not self.left:
            self.left, self.closed = 40, now + 5
        return True


def wake(pace: Pace, now: float) -> float:
    """When something may start next (s), as far as that is a matter of time; inf: not before a result."""
    times = [math.inf]
    for route in pace.routes.values():
        n = pace.backlog.find(route.name)
        at_once = pace.backlog.ahead or route.why or (route.held and not route.flying)
        waits = 0 if at_once else math.inf if n is None else pace.backlog.waiting[n][0]
        times.append(max(now, route.due(), waits))
    return min(times)


def answer(youtube: YouTube | Windows, task: Task, now: float) -> tuple[Result, float]:
    """What comes of a task, and after how many s."""
    if not youtube.ask(now):
        return Result(task.segment, THROTTLED, 'bot check'), random.uniform(0.2, 0.6)
    luck = random.random()
    if luck > 0.85:
        return Result(task.segment, GONE, 'unavailable' if luck > 0.95 else 'private'), random.uniform(0.2, 0.6)
    return Result(task.segment, DONE, DONE), random.uniform(1, 3)


def run(pace: Pace, youtube: YouTube | Windows, until: float, places: int = 8) -> float:
    """Let a run go on until the clock says so; returns when it ended."""
    now, order, flying = 0.0, itertools.count(), []
    while not pace.over and now < until:
        while len(flying) < places and (task := pace.next(now)):
            result, lasts = answer(youtube, task, now)
            heapq.heappush(flying, (now + lasts, next(order), task, result))
        due = wake(pace, now) if len(flying) < places else until
        now = max(now + 0.01, min(due, flying[0][0] if flying else until))
        while flying and flying[0][0] <= now:
            _, _, task, result = heapq.heappop(flying)
            pace.see(task, result, now)
    return now


def simulate(youtube: YouTube, days: float = 1, learns: bool = True) -> tuple[float, float]:
    """Share of what there was to get, share of requests refused."""
    settled: list[Result] = []
    rows = (row(f'{n:011}') for n in itertools.count())
    pace = Pace(settings(), ['direct'], rows, settled.append)
    if not learns:
        pace.routes['direct'].budget.learn = lambda refused, now: None
    run(pace, youtube, days * DAY)
    return len(settled) / youtube.best(days), youtube.refusals / youtube.requests


def windows(places: int) -> tuple[int, float]:
    """Requests into closed windows, and s until all was done."""
    youtube, settled = Windows(), []
    made = settings(pause=2, longest_pause=4, num_processes=places)
    pace = Pace(made, ['direct'], (row(f'{n:011}') for n in range(150)), settled.append)
    ended = run(pace, youtube, 1e5, places)
    assert len(settled) == 150
    return youtube.refusals, ended


KINDS = {
    'rolling hour': {},
    'blocks for an hour': {'blocks': True},
    'the same, each refusal anew': {'blocks': True, 'extends': True},
    'halves at noon': {'halves': True},
}


def main(seed: int = 0) -> int:
    random.seed(seed)
    download.say = lambda message: None
    print('| YouTube | rows an hour | got | refused | got by bursts | refused |\n|---|---|---|---|---|---|')
    for name, kind in KINDS.items():
        for limit in (300, 1000, 4000):
            got, refused = simulate(YouTube(limit, **kind))
            burst, rebuffed = simulate(YouTube(limit, **kind), learns=False)
            print(f'| {name} | {limit} | {got:.1%} | {refused:.2%} | {burst:.1%} | {rebuffed:.2%} |')
    for places in (8, 32):
        refused, ended = windows(places)
        print(f'\n150 rows, windows of 5 s, {places} places: {refused} requests into closed windows, {ended:.0f} s')
    return 0

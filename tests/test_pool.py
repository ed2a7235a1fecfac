"""The processes of this machine by themselves: what they do not bring comes back, and leaves nothing behind."""

import concurrent.futures
import contextlib
import pathlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import download
import simulate
import youtube as stand_in
from conftest import wait_for
from download import Task


@pytest.fixture
def pool(tmp_path: pathlib.Path, site: stand_in.YouTube) -> Iterator[download.Pool]:
    settings = download.read_settings(['--root', str(tmp_path), '--num-processes', '1', '--timeout', '60'])
    download.open_root(settings)
    download.open_routes(settings)
    with contextlib.closing(download.Pool(settings)) as made:
        yield made


def bring(pool: download.Pool, task: Task) -> download.Result | None:
    future = pool.submit(task)
    while not future.done():
        concurrent.futures.wait([future], 0.1)
        pool.mend()
    return pool.result(task, future)


def test_tasks_that_a_broken_pool_had_not_taken_up_come_back(pool: download.Pool) -> None:
    whole, pool.given = pool.given, ()  # its processes end at once
    pool.settings.cookies = '#' * 200_000  # more than a pipe takes before somebody reads
    tasks = [Task(simulate.row(f'{n:011}'), 'direct') for n in range(3)]
    futures = [pool.submit(task) for task in tasks]
    wait_for(lambda: not pool.pool.active)
    assert pool.free(SimpleNamespace(routes={}), 0)
    wait_for(lambda: all(future.done() for future in futures))
    assert [pool.result(task, future) for task, future in zip(tasks, futures, strict=True)] == [None] * 3
    pool.given, pool.settings.cookies = whole, ''
    assert bring(pool, tasks[0]).verdict == 'done'


def test_processes_that_end_at_once_end_the_run_in_plain_words(pool: download.Pool) -> None:
    pool.given = ()
    task = Task(simulate.row('00000000000'), 'direct')
    with pytest.raises(OSError, match='worker processes end as soon as they begin'):  # noqa: PT012
        while True:
            bring(pool, task)


def test_a_process_without_a_scratch_folder_says_so(pool: download.Pool) -> None:
    pool.given = pool.settings, pathlib.Path('/nowhere'), set()
    task = Task(simulate.row('00000000000'), 'direct')
    assert '/nowhere' in bring(pool, task).message


def test_a_process_that_is_ended_leaves_no_part_of_its_clip(pool: download.Pool, site: stand_in.YouTube) -> None:
    site.healthy.fault = 'media stall'
    pool.settings.clip_timeout = 5
    task, scratch = Task(simulate.row('00000000000'), 'direct', at=1.5), pathlib.Path(pool.scratch.name)
    future = pool.submit(task)
    wait_for(lambda: future.done() or list(scratch.glob('*/id_*')))
    assert pool.result(task, future).reason == 'timeout'
    assert not list(scratch.glob('*/id_*'))

"""The ledger: sound whatever happens to the machine, refused where it is none, read by many while one writes."""

import contextlib
import errno
import itertools
import os
import pathlib
import re
import shutil
import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterator

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st

import download
import youtube as stand_in
from conftest import Program, may_mount, mounted, opened, settle, wait_for

A, B = 'aaaaaaaaaaa', 'bbbbbbbbbbb'
SHARDS = pytest.mark.parametrize('shard', ['0/1', '0/2'], ids=['WAL', "a shard's journal"])
disks = pytest.mark.skipif(not may_mount(), reason='may not mount here')


@pytest.fixture(scope='module')
def csvs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made = tmp_path_factory.mktemp('csvs')
    (made / 'eval_segments.csv').write_bytes(stand_in.segments_csv(stand_in.rows(600)))
    return made


# -------------------------------------------------------------------------------------------------- what is no ledger


def foreign(path: pathlib.Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute('CREATE TABLE clip (id)')


def newer(path: pathlib.Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute('PRAGMA user_version = 99')


SPOILS: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
    'text': (lambda path: path.write_text('a thesis\n' * 1000), 'file is not a database.*move it away'),
    'another program': (foreign, 'not a ledger of this script; move it away'),
    'a later version': (newer, 'was written by a later version'),
    'cut short': (lambda path: os.truncate(path, path.stat().st_size // 2), 'malformed.*move it away'),
    'zeros': (
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096)),
        'malformed.*move it away',
    ),
    'zeros from its start': (lambda path: path.write_bytes(bytes(path.stat().st_size)), 'not a database.*move it away'),
}


@pytest.mark.parametrize(
    ('spoil', 'flags'),
    [
        *((spoil, []) for spoil in SPOILS),
        ('text', ['--dry-run']),
        ('cut short', ['--dry-run']),
        ('another program', ['--merge']),
        ('zeros', ['--merge']),
        ('a later version', ['--verify']),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else value,
)
def test_what_is_no_ledger_is_refused_and_left_alone(program: Program, spoil: str, flags: list[str]) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    path = program.root / 'wavs' / 'm4a.sqlite3'
    path.parent.mkdir(parents=True)
    (program.root / 'csvs').mkdir()
    (program.root / 'csvs' / 'eval_segments.csv').write_bytes(program.site.files['eval_segments.csv'])
    with opened(program.root / 'csvs', ledger=path) as job:
        settle(job, *job.rows())
    how, why = SPOILS[spoil]
    how(path)
    before = path.read_bytes()
    said = program.run(*flags, status=2).stderr
    assert said.count('\n') == 1
    assert re.search(rf'm4a\.sqlite3.*{why}', said), said
    assert path.read_bytes() == before
    assert not program.site.counts['player']
    assert not (program.root / 'audioset_metadata.json').exists()


def test_a_ledger_that_is_damaged_deep_inside(program: Program) -> None:
    """Nobody reads all of it to find out, but who meets it says what to do."""
    rows = stand_in.rows(600)
    program.offer(*rows)
    program.run('--dry-run')
    path = program.root / 'wavs' / 'm4a.sqlite3'
    content = path.read_bytes()
    page = content.index(f'id_{rows[400][:11]}'.encode()) // 4096 * 4096
    path.write_bytes(content[:page] + bytes(4096) + content[page + 4096 :])
    for flags in (['--dry-run'], []):
        said = program.run(*flags, status=2).stderr
        assert re.search(r'm4a\.sqlite3.*malformed.*move it away', said), said


@disks
def test_a_ledger_that_cannot_be_written(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"', f'{B}, 30.000, 40.000, "/m/09x0r"')
    program.run('--limit', '1')
    path = program.root / 'wavs' / 'm4a.sqlite3'
    before = path.read_bytes()
    with mounted('-o', 'bind,ro', path, path):
        said = program.run(status=2).stderr
    assert said.count('\n') == 1
    assert 'm4a.sqlite3' in said
    assert path.read_bytes() == before
    assert program.site.counts['player'] == 1


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        (pathlib.PurePosixPath('/data/a b%'), 'file:///data/a%20b%25?mode=ro'),
        (pathlib.PureWindowsPath(r'C:\data\m4a.sqlite3'), 'file:///C:/data/m4a.sqlite3?mode=ro'),
        (pathlib.PureWindowsPath(r'\\server\share\m4a.sqlite3'), 'file:////server/share/m4a.sqlite3?mode=ro'),
    ],
    ids=['a path', 'a drive', 'a share'],
)
def test_sqlite_is_told_where_a_ledger_is(path: pathlib.PurePath, expected: str) -> None:
    assert download.uri_of(path, 'ro') == expected


# ------------------------------------------------------------------------------------------- crashes, power, the disk


@pytest.fixture(scope='module', params=['0/1', '0/2'], ids=['WAL', "a shard's journal"])
def interrupted(
    request: pytest.FixtureRequest, csvs: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[pathlib.Path, list[int]]]:
    """A ledger in the middle of a run, as it is on the disk, and the clips in the order in which they were settled."""
    folder = tmp_path_factory.mktemp('running')
    with opened(csvs, ledger=folder / 'm4a.sqlite3', shard=request.param) as job:
        job.reader.finish()
        settled = job.find('true', most=200)
        settle(job, *settled)
        job.reader.ledger.commit(at_once=True)
        job.db.execute('BEGIN IMMEDIATE')
        job.db.execute('PRAGMA cache_spill = 1')
        job.db.execute('UPDATE clip SET message = hex(randomblob(5000)) WHERE status IS NULL')
        yield folder, [segment.clip for segment in settled]
        job.db.execute('ROLLBACK')


@given(part=st.floats(0, 1), rubbish=st.binary(max_size=100))
def test_a_ledger_outlives_a_power_loss(
    interrupted: tuple[pathlib.Path, list[int]], tmp_path_factory: pytest.TempPathFactory, part: float, rubbish: bytes
) -> None:
    """What was synced last is as it may be after that: cut anywhere, or rubbish from there on."""
    folder, settled = interrupted
    after = tmp_path_factory.mktemp('after')
    for path in folder.iterdir():
        if not path.name.endswith('-shm'):
            shutil.copy(path, after)
    wal = after / 'm4a.sqlite3-wal'
    if wal.exists():
        at = int(part * wal.stat().st_size)
        wal.write_bytes(wal.read_bytes()[:at] + 50 * rubbish)
    with contextlib.closing(download.open_db(after / 'm4a.sqlite3', write=True)) as db:
        assert db.execute('PRAGMA integrity_check').fetchone() == ('ok',)
        found = [id for (id,) in db.execute("SELECT id FROM clip WHERE status = 'done' ORDER BY id")]
        assert found == settled[: len(found)]
        assert found == settled or (wal.exists() and part < 1)
        assert not db.execute('SELECT 1 FROM clip WHERE message IS NOT NULL').fetchall()


@SHARDS
def test_what_a_killed_run_left_can_be_read_at_once(csvs: pathlib.Path, tmp_path: pathlib.Path, shard: str) -> None:
    """By --merge and the other shards, before anybody writes it again."""
    folder = tmp_path / 'wavs' / 'ledgers'
    folder.mkdir(parents=True)
    name = f'm4a-{shard.replace("/", "-of-")}.sqlite3'
    with opened(csvs, ledger=tmp_path / name, shard=shard) as job:
        settle(job, *itertools.islice(job.rows(), 20))
        job.reader.ledger.commit(at_once=True)
        job.db.execute('PRAGMA cache_size = 1')
        job.db.execute('BEGIN IMMEDIATE')
        job.db.execute('UPDATE clip SET message = hex(randomblob(5000)) WHERE status IS NULL')
        for path in tmp_path.glob(f'{name}*'):
            shutil.copy(path, folder)
        job.db.execute('ROLLBACK')
    with opened(csvs, ledger=tmp_path / 'wavs' / 'm4a.sqlite3') as job:
        download.learn(job.reader.ledger, folder / name)
        assert job.db.execute("SELECT count(*), count(message) FROM clip WHERE status = 'done'").fetchone() == (20, 0)


# ---------------------------------------------------------------------------------------- readers, locks, other disks


@SHARDS
def test_readers_and_the_writer_do_not_wait_for_each_other(
    csvs: pathlib.Path, tmp_path: pathlib.Path, shard: str
) -> None:
    path = tmp_path / 'ledger'
    with opened(csvs, ledger=path, shard=shard) as job:
        job.reader.finish()
        first, second, third = job.find('true', most=3)
        settle(job, first)
        job.reader.ledger.commit(at_once=True)
        reader = sqlite3.connect(path, timeout=0)
        reading = reader.execute('SELECT id FROM clip')
        reading.fetchone()
        settle(job, second)
        job.reader.ledger.commit(at_once=True)
        assert job.db.execute('PRAGMA busy_timeout').fetchone()[0] <= 1000, 'ms that it waits for a reader'
        assert len(reading.fetchall()) > 100
        settle(job, third)
        assert reader.execute("SELECT count(*) FROM clip WHERE status = 'done'").fetchone()[0] >= 2
        reader.close()


@pytest.mark.parametrize(
    'why', [NotImplementedError(), OSError(errno.ENOLCK, 'no locks'), OSError(errno.ENOTSUP, 'no')], ids=repr
)
def test_a_file_system_without_locks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, why: Exception) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise why

    monkeypatch.setattr(filelock.FileLock, 'acquire', refuse)
    with download.claim(tmp_path / 'm4a.sqlite3'):
        pass


def test_two_runs_may_not_write(tmp_path: pathlib.Path, csvs: pathlib.Path) -> None:
    path = tmp_path / 'm4a.sqlite3'
    busy = pytest.raises(download.UsageError, match=rf'in use by process {os.getpid()} on ')
    with download.claim(path), opened(csvs, ledger=path), busy:
        download.claim(path)
    with download.claim(path):
        pass


@pytest.mark.parametrize('new', [True, False], ids=['new', 'of another disk'])
def test_a_file_system_without_shared_memory(
    csvs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    """SQLite refuses WAL there."""
    path, connect = tmp_path / 'm4a.sqlite3', sqlite3.connect
    if not new:
        with opened(csvs, ledger=path) as job:
            job.reader.finish()
    monkeypatch.setattr(
        sqlite3, 'connect', lambda at, *more, **named: connect(f'{at}&vfs=unix-dotfile', *more, **named)
    )
    with opened(csvs, ledger=path) as job:
        settle(job, next(job.rows()))
    with opened(csvs, ledger=path) as job:
        assert len(job.find("c.status = 'done'")) == 1


# ------------------------------------------------------------------------------------------------- one ledger of many


def test_what_is_gone_is_known_everywhere_and_what_is_done_among_shards(
    csvs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for ext in ('m4a', 'wav'):
        with opened(csvs, ledger=tmp_path / f'{ext}-0-of-2.sqlite3', ext=ext, shard='0/2') as job:
            done, gone, failed, *_ = job.rows()
            settle(job, done)
            settle(job, gone, reason='private')
            job.reader.ledger.settle(download.Result(failed, 'failed', 'other'))
    known = {'m4a': {gone.id: 'gone', done.id: 'done'}, 'wav': {gone.id: 'gone'}}
    for ext, expected in known.items():
        for before in (True, False):  # the list is read before, or after
            ours = tmp_path / f'{ext}-{before}.sqlite3'
            with opened(csvs, ledger=ours) as job:
                if before:
                    job.reader.finish()
                download.learn(job.reader.ledger, tmp_path / f'{ext}-0-of-2.sqlite3')
            with opened(csvs, ledger=ours) as job:
                job.reader.finish()
                statuses = {
                    segment.id: status
                    for status in ('done', 'gone', 'failed')
                    for segment in job.find('c.status = ?', status)
                }
                assert statuses == expected
                assert len(job.find('true', most=1000)) == 600


@SHARDS
def test_what_is_settled_since_is_learned_too(csvs: pathlib.Path, tmp_path: pathlib.Path, shard: str) -> None:
    """Also of a ledger that somebody writes, or was killed over."""
    ours, theirs = tmp_path / 'm4a.sqlite3', tmp_path / 'wav.sqlite3'
    with opened(csvs, ledger=theirs, ext='wav', shard=shard) as writer, opened(csvs, ledger=ours) as job:
        for count, segment in enumerate(itertools.islice(writer.rows(), 3), 1):
            settle(writer, segment, reason='private')
            writer.reader.ledger.commit(at_once=True)
            download.learn(job.reader.ledger, theirs)
            assert job.db.execute("SELECT count(*) FROM clip WHERE status = 'gone'").fetchone() == (count,)


def test_metadata_of_a_ledger_that_has_not_changed_stay(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    program.run()
    made = program.root / 'audioset_metadata.json'
    before = made.stat().st_mtime_ns
    for flags in ([], ['--merge'], ['--verify']):
        program.run(*flags)
        assert made.stat().st_mtime_ns == before, flags
    made.unlink()
    program.run()
    assert program.metadata[f'id_{A}']['ext'] == 'm4a'
    program.run('--ext', 'wav')
    assert program.metadata[f'id_{A}']['ext'] == 'wav'
    program.run()
    assert program.metadata[f'id_{A}']['ext'] == 'm4a'


def test_a_large_ledger_has_the_manifests_made_by_another_process(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.offer(*stand_in.rows(4))
    program.site.add(stand_in.rows(4)[1][:11], fault='private')
    program.run('--limit', '3')
    paths = [program.root / 'audioset_metadata.json', *(program.root / 'wavs').glob('*.[cj]s*')]
    before = {path: path.read_bytes() for path in paths}
    assert len(before) == 4
    for path in paths:
        path.unlink()
    monkeypatch.setattr(download, 'SLOW', 0)
    monkeypatch.setattr(download, 'write_manifests', None)  # not by this one
    program.run('--merge', '--limit', '3')
    assert {path: path.read_bytes() for path in paths} == before


@pytest.mark.skipif(sys.platform != 'linux', reason='its processes')
@SHARDS
def test_looking_and_merging_beside_a_run(program: Program, shard: str) -> None:
    rows = stand_in.rows(30)
    program.offer(*rows)
    for row in rows[15:]:
        program.site.videos[row[:11]] = stand_in.Video(fault='media stall')
    ours = [row for row in rows if shard == '0/1' or zlib.crc32(row[:11].encode()) % 2 == 0]
    there = len(set(ours) & set(rows[:15]))
    process = program.start('--timeout', '60', '--shard', shard)
    wait_for(lambda: program.clips() and len(program.settled) == there)
    for _ in range(2):
        assert f'{there} records' in program.run('--merge').stdout
    assert re.search(rf'^eval +\d+ +{there} +{there} ', program.run('--dry-run', '--shard', shard).stdout, re.M)
    program.run('--report', '--shard', shard)
    assert process.poll() is None
    program.site.videos.clear()
    process.terminate()
    process.communicate()
    program.run('--shard', shard)
    program.run('--merge')
    assert len(program.metadata) == len(ours)


@disks
def test_lists_that_are_read_only(program: Program) -> None:
    program.offer(*stand_in.rows(4))
    program.run('--limit', '1')
    csvs = program.root / 'csvs'
    with mounted('-o', 'bind,ro', csvs, csvs):
        for flags in (['--dry-run'], ['--report'], [], ['--merge']):
            program.run(*flags)
        assert 'balanced_train_segments.csv' in program.run('--splits', 'balanced_train', status=2).stderr
    assert len(program.metadata) == 4

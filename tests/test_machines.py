"""Shards, names and what else lets a job be shared among machines or spread over folders."""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import download
import youtube as stand_in
from conftest import Program, opened, settle, wait_for
from youtube import Video

LINES = st.sampled_from([*(f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(30)), '# remark', ''])


def shares(csvs: pathlib.Path, lines: list[str], shards: int, **settings: object) -> list[list[str]]:
    (csvs / 'eval_segments.csv').write_text('\n'.join([*lines, '']))
    found = []
    for n in range(shards):
        with opened(csvs, shard=f'{n}/{shards}', **settings) as job:
            found.append([segment.ytid for segment in job.rows()])
    return found


@given(
    st.lists(LINES, max_size=60).filter(lambda lines: any(',' in line for line in lines)),
    st.integers(1, 6),
    st.none() | st.integers(1, 40),
)
def test_shards_partition_the_rows(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], shards: int, limit: int | None
) -> None:
    csvs = tmp_path_factory.mktemp('csvs')
    (alone,) = shares(csvs, lines, 1, limit=limit)
    parts = shares(csvs, lines, shards, limit=limit)
    assert Counter(alone) == sum(map(Counter, parts), Counter())
    assert len(alone) == min(len({line for line in lines if ',' in line}), limit or 60)


@pytest.mark.parametrize('shards', [2, 8, 40])
def test_shards_are_of_about_one_size(tmp_path: pathlib.Path, shards: int) -> None:
    mean = 4000 / shards
    for part in shares(tmp_path, stand_in.rows(4000), shards):
        assert abs(len(part) - mean) < 5 * mean**0.5


def test_what_is_settled_moves_no_row_to_another_shard(tmp_path: pathlib.Path) -> None:
    before = shares(tmp_path, stand_in.rows(50), 3, limit=40)[1]
    with opened(tmp_path, shard='1/3', limit=40) as job:
        first, second, *_ = job.rows()
        settle(job, first)
        settle(job, second, reason='private')
        assert [segment.ytid for segment in job.find(download.TO_DO)] == before[2:]
        assert job.counts() == {('done', ''): 1, ('gone', 'private'): 1, ('', ''): len(before) - 2}


def test_three_shards_at_once_make_what_one_machine_makes(program: Program, tmp_path: pathlib.Path) -> None:
    rows = stand_in.rows(40)
    program.offer(*rows)
    program.site.videos[rows[7][:11]] = Video(fault='private')
    alone = Program(tmp_path / 'alone', program.site)
    alone.run()
    shards = [program.start('--shard', f'{n}/3', '--num-processes', '2') for n in range(3)]
    for shard in shards:
        out, err = shard.communicate(timeout=100)
        assert shard.returncode == 0, out + err
        assert '--merge makes the metadata of all there is' in out
    assert not (program.root / 'audioset_metadata.json').exists()
    assert '39 records' in program.run('--merge').stdout
    assert {key: program.metadata[key] for key in alone.metadata} == program.metadata == alone.metadata
    assert [path.read_bytes() for path in program.clips()] == [path.read_bytes() for path in alone.clips()]
    assert not program.leftovers()
    asked = program.site.counts['player']
    for flags in ([], ['--shard', '1/5']):  # whoever comes next knows what they have settled
        program.run(*flags)
    assert program.site.counts['player'] == asked


def test_one_run_per_shard(program: Program) -> None:
    program.offer(*stand_in.rows(12))
    program.site.healthy.fault = 'media stall'
    first = program.start('--shard', '0/2')
    wait_for(lambda: program.site.counts['media'])
    assert re.search(r'0-of-2.sqlite3 is in use by process \d+ on', program.run('--shard', '0/2', status=2).stderr)
    for flags in ([], ['--shard', '1/2', '--verify']):
        assert 'sqlite3 is in use by' in program.run(*flags, status=2).stderr
    program.site.healthy.fault = ''
    assert '6 to do' in program.run('--shard', '01/02').stdout
    first.terminate()
    first.communicate()
    assert '6 settled' in program.run('--shard', '1/2').stdout


def test_ledgers_of_separate_disks_come_together(program: Program, tmp_path: pathlib.Path) -> None:
    rows = stand_in.rows(20)
    program.offer(*rows)
    machines = [Program(tmp_path / name, program.site) for name in ('first', 'second')]
    for n, machine in enumerate(machines):
        machine.run('--shard', f'{n}/2')
        shutil.copytree(machine.root / 'wavs', program.root / 'wavs', dirs_exist_ok=True)
    program.run('--merge')
    assert sorted(program.metadata) == sorted(f'id_{row[:11]}' for row in rows)
    assert all((program.root / record['path']).exists() for record in program.metadata.values())
    program.clips()[3].write_bytes(b'')
    assert 'verified 20 clips: 1 missing or damaged' in program.run('--verify').stdout
    assert len(program.metadata) == 20
    assert program.site.counts['player'] == 21


def test_a_shard_does_not_start_beside_a_run_without_shards(program: Program) -> None:
    program.offer(*stand_in.rows(4))
    program.site.healthy.fault = 'media stall'
    first = program.start()
    wait_for(lambda: program.site.counts['media'])
    assert re.search(r'm4a.sqlite3 is in use by process \d+ on', program.run('--shard', '0/2', status=2).stderr)
    first.terminate()
    first.communicate()
    program.site.healthy.fault = ''
    assert '1 rows, 0 settled' in program.run('--shard', '0/2').stdout


def test_a_damaged_clip_of_a_row_that_was_gone_once(program: Program) -> None:
    (row,) = stand_in.rows(1)
    program.offer(row)
    program.site.add(row[:11], fault='age')
    program.run()
    program.site.videos.clear()
    program.run('--again', 'age')
    program.clip().write_bytes(b'')
    program.run('--verify')
    assert program.clip().stat().st_size > 100_000


def test_what_lies_in_temps_and_is_not_ours_stays(program: Program) -> None:
    program.offer(*stand_in.rows(1))
    thesis = program.root / 'temps' / 'precious' / 'thesis'
    thesis.parent.mkdir(parents=True)
    thesis.write_text('done')
    program.run()
    assert thesis.read_text() == 'done'


@pytest.mark.parametrize('before', [[], ['--shard', '1/3']], ids=str)
def test_a_shard_verifies_what_others_have_fetched(program: Program, before: list[str]) -> None:
    program.offer(*stand_in.rows(6))
    program.run(*before)
    program.run('--shard', '1/2')
    for clip in program.clips()[::2]:
        clip.unlink()
    lost = len(program.clips())
    for shard in ('0/2', '1/2'):
        program.run('--shard', shard, '--verify')
    assert len(program.clips()) == 6, lost
    assert 'verified 6 clips: 0 missing' in program.run('--verify').stdout
    assert len(program.metadata) == 6


NAMES = [
    'id_{ytid}',
    '{split}/{part:06}/id_{ytid}',
    'Y{ytid}_{start:.0f}_{end}',
    '{index:07}-{ytid}',
    '{ytid[0]}/{ytid}',
    'a/b/{ytid}',
]
SEGMENTS = st.builds(
    download.Segment,
    ytid=st.from_regex(r'[A-Za-z0-9_-]{11}', fullmatch=True),
    start=st.integers(0, 600).map(float) | st.floats(0, 600),
    end=st.integers(601, 1200).map(float),
    split=st.sampled_from(['eval', 'train.2']),
    index=st.integers(0, 3_000_000),
    id=st.just('') | st.integers(0, 600_000).map('id_<the video>_{}'.format),
)


@given(st.sampled_from(NAMES), SEGMENTS, SEGMENTS, st.none() | st.integers(0, 10))
def test_names_do_not_collide_nor_escape(
    name: str, one: download.Segment, other: download.Segment, at: int | None
) -> None:
    if at is not None:  # near each other
        other = one._replace(ytid=one.ytid[:at] + other.ytid[at] + one.ytid[at + 1 :])
    download.check_name(name, ['eval', 'train.2'])
    settings = argparse.Namespace(wavs=pathlib.Path('/wavs'), name=name, ext='m4a')
    places = [download.place(settings, segment).resolve() for segment in (one, other)]
    assert all(place.is_relative_to('/wavs') and not place.name.startswith('.') for place in places)
    assert (places[0] == places[1]) <= ((one.ytid, one.id) == (other.ytid, other.id))


@pytest.mark.parametrize(
    ('name', 'why'),
    [
        ('clip', 'overwrite each other'),
        ('{ytid}/clip', 'overwrite each other'),
        ('{ytid:.5}', 'overwrite each other'),
        ('{start}{ytid}{end}', 'overwrite each other'),
        ('{split}/{index}', 'overwrite each other'),
        ('{{ytid}}', 'overwrite each other'),
        ('../{ytid}', "'..' cannot be a name"),
        ('', "'' cannot be a name"),
        ('/tmp/{ytid}', "'' cannot be a name"),
        ('{ytid}/', "'' cannot be a name"),
        ('ledgers/{ytid}', 'wavs/ledgers is taken'),
        ('{ytid}.m4a', 'leave the extension away'),
        ('C:\\{ytid}', 'cannot be a name'),
        ('.hidden/{ytid}', "'.hidden' cannot be a name"),
        (f'{"x" * 300}/{{ytid}}', 'cannot be a name'),
        ('{ytid.__class__}/{ytid}', 'cannot be a name'),
        ('{title}_{ytid}', "'title'; write fields like {ytid}, of ytid, split, start"),
        ('{}{ytid}', 'write fields like {ytid}'),
        ('{ytid[20]}{ytid}', 'string index out of range'),
        ('{split[9]}/{ytid}', 'string index out of range'),
        (f'{"é" * 150}{{ytid}}', 'cannot be a name'),
        ('{split}./{ytid}', 'cannot be a name'),
        ('{ytid', "expected '}'"),
        ('{index:y}{ytid}', 'Unknown format code'),
    ],
)  # fmt: skip
def test_a_name_that_cannot_work_is_refused(name: str, why: str) -> None:
    with pytest.raises(download.UsageError, match=re.escape(why)):
        download.check_name(name, ['balanced_train', 'eval'])


def test_clips_in_folders(program: Program) -> None:
    rows = stand_in.rows(6)
    program.offer(*rows)
    flags = ['--name', '{split}/{part:06}/id_{ytid}']
    program.run(*flags)
    paths = {record['path'] for record in program.metadata.values()}
    assert paths == {f'wavs/eval/000000/id_{row[:11]}.m4a' for row in rows}
    assert all((program.root / path).stat().st_size > 100_000 for path in paths)
    (program.root / sorted(paths)[0]).unlink()
    assert '1 missing or damaged' in program.run(*flags, '--verify').stdout
    program.run()  # what is there stays where it is
    assert {record['path'] for record in program.metadata.values()} == paths
    assert program.site.counts['player'] == 7


def test_neither_a_run_nor_a_rerun_looks_through_wavs(program: Program) -> None:
    program.offer(*stand_in.rows(5))
    code = (
        f'import sys; sys.path.insert(0, {str(program.script.parent)!r}); import download\n'
        'seen, looks = [], ("os.scandir", "os.listdir")\n'
        'sys.addaudithook(lambda what, args: seen.append(str(args[0])) if what in looks else None)\n'
        f'download.main(["--root", {str(program.root)!r}, "--splits", "eval"])\n'
        f'assert seen and {str(program.root / "wavs")!r} not in seen, seen'
    )
    for _ in range(2):
        ran = subprocess.run([sys.executable, '-c', code], env=program.env, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
    for clip in program.clips():
        clip.unlink()
    assert '5 settled (5 done), 0 to do' in program.run().stdout, 'nor does it look for each clip'


@pytest.mark.parametrize('shard', ['8/8', '1', '-1/2', '0/0', 'a/b', '1/2/3', '\u0663/4'])
def test_a_shard_that_is_none(shard: str) -> None:
    with pytest.raises(download.UsageError, match='use 0/8 to 7/8'):
        download.read_settings([f'--shard={shard}'])

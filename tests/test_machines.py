"""Shards, names and what else lets a job be shared among machines or spread over folders."""

import argparse
import json
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
from conftest import Program, wait_for
from test_read import survey
from youtube import Video

LINES = st.sampled_from([*(f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(30)), 'nonsense', '# remark', ''])


def shares(csvs: pathlib.Path, lines: list[str], shards: int, **settings: object) -> list[list[str]]:
    (csvs / 'eval_segments.csv').write_text('\n'.join([*lines, '']))
    surveys = [survey(csvs, shard=f'{n}/{shards}', **settings) for n in range(shards)]
    for found in surveys:
        found.skip = lambda _: None
    return [[segment.ytid for segment in found.rows()] for found in surveys]


@given(st.lists(LINES, max_size=60), st.integers(1, 9), st.none() | st.integers(1, 40))
def test_shards_partition_the_rows(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], shards: int, limit: int | None
) -> None:
    csvs = tmp_path_factory.mktemp('csvs')
    (alone,) = shares(csvs, lines, 1, limit=limit)
    parts = shares(csvs, lines, shards, limit=limit)
    assert Counter(alone) == sum(map(Counter, parts), Counter())
    assert len(alone) == min(len({line for line in lines if ',' in line}), limit or 60)


@given(st.integers(0, 400), st.integers(1, 40))
def test_shards_are_of_one_size(tmp_path_factory: pytest.TempPathFactory, rows: int, shards: int) -> None:
    csvs = tmp_path_factory.mktemp('csvs')
    lines = [line for row in stand_in.rows(rows) for line in (row, row, 'nonsense')]
    sizes = {len(part) for part in shares(csvs, lines, shards)}
    assert max(sizes) - min(sizes) <= 1


def test_what_is_settled_moves_no_row_to_another_shard(tmp_path: pathlib.Path) -> None:
    lines = stand_in.rows(50)
    before = shares(tmp_path, lines, 3)[1]
    found = survey(tmp_path, shard='1/3')
    found.known.settled.update({f'id_{ytid}'.encode(): 'private' for ytid in [lines[0][:11], before[0], before[5]]})
    assert [segment.ytid for segment in found.rows()] == [*before[1:5], *before[6:]]
    assert (found.total, found.before, found.new) == (len(before), {'private': 2}, len(before) - 2)


@pytest.mark.parametrize(
    'row', ['"{}",30.0,40.0,"/m/09x0r"', ' {}, 30.0, 40.0, "/m/09x0r"', '{}, 30\n{}, 30.0, 40.0, "/m/09x0r"']
)
def test_odd_rows_are_known_again(tmp_path: pathlib.Path, row: str) -> None:
    ids = [f'{n:011}' for n in range(5)]
    (tmp_path / 'eval_segments.csv').write_text('\n'.join(row.format(ytid, ytid) for ytid in ids))
    found = survey(tmp_path, limit=4)
    assert [segment.ytid for segment in found.rows()] == ids[:4]
    known = survey(tmp_path, limit=4)
    known.known.settled.update({f'id_{ytid}'.encode(): 'done' for ytid in ids[:3]})
    assert [segment.ytid for segment in known.rows()] == ids[3:4]
    assert (known.total, known.before['done'], known.skipped) == (4, 3, found.skipped)


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
        assert 'python download.py --merge makes the metadata' in out
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
    assert re.search(r'0-of-2.jsonl is in use by process \d+ on', program.run('--shard', '0/2', status=2).stderr)
    for flags in ([], ['--shard', '1/2', '--verify']):
        assert 'jsonl is in use by' in program.run(*flags, status=2).stderr
    program.site.healthy.fault = ''
    assert '6 to do' in program.run('--shard', '01/02').stdout
    first.terminate()
    first.communicate()
    assert '6 settled' in program.run('--shard', '1/2').stdout


def test_journals_of_separate_disks_come_together(program: Program, tmp_path: pathlib.Path) -> None:
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
    assert re.search(r'journal.jsonl is in use by process \d+ on', program.run('--shard', '0/2', status=2).stderr)
    first.terminate()
    first.communicate()
    program.site.healthy.fault = ''
    assert '2 to do' in program.run('--shard', '0/2').stdout


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


@pytest.mark.parametrize('before', [[], ['--shard', '0/1'], ['--shard', '1/3']], ids=str)
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


@pytest.mark.parametrize('spoil', ['torn', 'glued', 'zeros', 'another make', 'cut'])
def test_a_spoiled_line_costs_its_row_only(tmp_path: pathlib.Path, spoil: str) -> None:
    known = dict.fromkeys(download.RECORD, 0) | {'ext': 'm4a', 'status': 'done', 'bytes': 1, 'title': '"ext": "wav", {é} :{'}
    lines = [download.write_line({**known, 'id': f'id_{n}'}) for n in range(5)]
    lines[3] = download.write_line(
        {'status': 'gone', 'id': 'id_3', 'reason': 'private', 'message': 'Private video', 'split': 'eval'}
    )
    spoiled = {
        'torn': lines[2][:90] + b'\n',
        'glued': lines[2][:90],
        'zeros': lines[2][:90] + bytes(20) + lines[2][110:],
        'another make': json.dumps({key: known[key] for key in sorted(known)} | {'id': 'id_2'}, indent=None).encode() + b'\n',
        'cut': lines[2],
    }
    lines[2] = spoiled[spoil]
    lines[4] = lines[4][:60] if spoil == 'cut' else lines[4]
    path = tmp_path / 'wavs' / 'journal.jsonl'
    path.parent.mkdir()
    path.write_bytes(b''.join(lines))
    whole = {'torn': [0, 1, 3, 4], 'glued': [0, 1, 3, 4], 'zeros': [0, 1, 3, 4], 'another make': range(5), 'cut': range(4)}[spoil]
    assert {key: why for _, _, key, why in download.read_journal(path)} == {
        f'id_{n}'.encode(): b'private' if n == 3 else b'm4a' for n in whole
    }
    settings = argparse.Namespace(wavs=path.parent, ext='m4a', metadata=tmp_path / 'metadata.json')
    download.merge_metadata(settings)
    made = json.loads(settings.metadata.read_text(encoding='utf-8'))
    assert list(made) == [f'id_{n}' for n in whole if n != 3]
    assert all(list(record) == download.RECORD and record['title'] == known['title'] for record in made.values())


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
    tags=st.just(()),
    split=st.sampled_from(['eval', 'train.2']),
    index=st.integers(0, 3_000_000),
    mark=st.just('') | st.integers(0, 600_000).map('_{}'.format),
    more=st.just(''),
)


@given(st.sampled_from(NAMES), SEGMENTS, SEGMENTS, st.none() | st.integers(0, 10))
def test_names_do_not_collide_nor_escape(name: str, one: download.Segment, other: download.Segment, at: int | None) -> None:
    if at is not None:  # near each other
        other = one._replace(ytid=one.ytid[:at] + other.ytid[at] + one.ytid[at + 1 :])
    download.check_name(name, ['eval', 'train.2'])
    settings = argparse.Namespace(wavs=pathlib.Path('/wavs'), name=name, ext='m4a')
    places = [download.place(settings, segment).resolve() for segment in (one, other)]
    assert all(place.is_relative_to('/wavs') and not place.name.startswith('.') for place in places)
    assert (places[0] == places[1]) <= (one.id == other.id)


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
        ('', 'is empty'),
        ('/tmp/{ytid}', 'is empty between, before or after its /'),
        ('{ytid}/', 'is empty between, before or after its /'),
        ('journals/{ytid}', 'wavs/journals is taken'),
        ('{ytid}.m4a', 'leave the extension away'),
        ('C:\\{ytid}', 'cannot be a name'),
        ('.hidden/{ytid}', "'.hidden' cannot be a name"),
        (f'{"x" * 300}/{{ytid}}', 'cannot be a name'),
        ('{ytid.__class__}/{ytid}', 'cannot be a name'),
        ('{title}_{ytid}', "'title' is none of ytid, split, start"),
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
    with pytest.raises(download.Oops, match=re.escape(why)):
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
    with pytest.raises(download.Oops, match='use 0/8 to 7/8'):
        download.read_settings([f'--shard={shard}'])

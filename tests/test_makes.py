"""A job is what it says: makes that do not mix, manifests of what is chosen, lines that say what they count."""

import csv
import pathlib
import shlex
import subprocess

import mutagen
import pytest

import download
import youtube as stand_in
from conftest import QUICK, Program, opened, settle, wait_for

ROWS = stand_in.rows(3)
IDS = [row[:11] for row in ROWS]
WAV = ['--ext', 'wav', '--sample-rate', '16000']


def rates(program: Program) -> dict[str, int]:
    """Hz of each wav, by its path in wavs/."""
    wavs = program.root / 'wavs'
    return {
        path.relative_to(wavs).as_posix(): mutagen.File(path).info.sample_rate for path in sorted(wavs.rglob('*.wav'))
    }


def table(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, encoding='utf-8', newline='') as lines:
        return list(csv.DictReader(lines))


# -------------------------------------------------------------------------------------------------------------- makes


def test_another_ext_is_another_job_with_its_own_records(program: Program) -> None:
    program.offer(*ROWS)
    program.run('--limit', '2')
    said = program.run('--preset', 'ast', '--pad').stdout
    assert {record['ext'] for record in program.metadata.values()} == {'wav'}
    assert sorted(program.metadata) == sorted(f'id_{ytid}' for ytid in IDS)
    assert f'3 records in {program.root}/audioset_metadata.json: eval 3; 2 clips of other makes' in said
    assert '"ext":"m4a"' not in (program.root / 'wavs' / 'metadata.jsonl').read_text()
    assert '2 records' in program.run('--limit', '2').stdout
    assert {record['ext'] for record in program.metadata.values()} == {'m4a'}


@pytest.mark.parametrize(
    'other',
    [
        ['--sample-rate', '32000'],
        ['--sample-rate', '16000', '--channels', '1'],
        ['--sample-rate', '16000', '--pad'],
        [],
    ],
    ids=['rate', 'channels', 'padding', 'none'],
)
def test_makes_of_the_same_files_are_refused(program: Program, other: list[str]) -> None:
    program.offer(*ROWS)
    program.run(*WAV)
    before, asked = rates(program), program.site.counts['player']
    said = program.run('--ext', 'wav', *other, status=2).stderr
    assert program.run('--ext', 'wav', *other, '--dry-run', status=2).stderr == said
    assert said.count('\n') == 1
    assert '3 clips of wav-16000Hz' in said
    assert all(way in said for way in ('root', 'name', 'remake'))
    assert (rates(program), program.site.counts['player']) == (before, asked)


def test_remake_replaces_clip_by_clip(program: Program) -> None:
    program.offer(*ROWS)
    program.run(*WAV)
    program.site.videos[IDS[1]] = stand_in.Video(fault='media 403')
    again = ['--ext', 'wav', '--sample-rate', '32000', '--remake', '--retries', '0']
    program.run(*again, status=1)
    assert rates(program) == {f'id_{ytid}.wav': 16000 if ytid == IDS[1] else 32000 for ytid in IDS}
    assert len(program.metadata) == 2
    assert '1 clips of wav-16000Hz' in program.run('--ext', 'wav', '--sample-rate', '32000', status=2).stderr
    program.run(*WAV, '--merge')
    assert list(program.metadata) == [f'id_{IDS[1]}']
    program.site.videos.clear()
    program.run(*again)
    program.run('--ext', 'wav', '--sample-rate', '32000')
    assert set(rates(program).values()) == {32000}
    assert len(program.metadata) == 3


def test_another_name_keeps_both(program: Program) -> None:
    program.offer(*ROWS)
    program.run(*WAV)
    program.run('--preset', 'panns')
    panns = {f'eval_segments/Y{ytid}.wav': 32000 for ytid in IDS}
    assert rates(program) == panns | {f'id_{ytid}.wav': 16000 for ytid in IDS}
    assert {record['path'] for record in program.metadata.values()} == {f'wavs/{path}' for path in panns}


def test_a_file_of_another_rate_is_not_taken_in(program: Program) -> None:
    program.offer(*ROWS)
    program.run(*WAV)
    program.lose_ledgers()
    program.run('--ext', 'wav', '--sample-rate', '32000')
    assert set(rates(program).values()) == {32000}
    program.lose_ledgers()
    asked = program.site.counts['player']
    program.run('--ext', 'wav', '--sample-rate', '32000')
    assert program.site.counts['player'] == asked


def test_looking_at_another_name_does_not_make_them_mix(program: Program) -> None:
    program.offer(*ROWS)
    program.run(*WAV)
    program.run(*WAV, '--name', 'x/{ytid}', '--dry-run')
    assert '3 clips of wav-16000Hz' in program.run('--ext', 'wav', '--sample-rate', '32000', status=2).stderr
    assert set(rates(program).values()) == {16000}


def test_two_makes_of_the_same_files_do_not_run_side_by_side(program: Program) -> None:
    program.offer(*ROWS)
    for ytid in IDS:
        program.site.videos[ytid] = stand_in.Video(fault='media stall')
    first = program.start(*WAV, '--timeout', '60')
    wait_for(lambda: program.site.counts['media'])
    assert 'in use by process' in program.run('--ext', 'wav', '--sample-rate', '32000', status=2).stderr
    first.terminate()
    first.communicate()


# ---------------------------------------------------------------------------------------------------------- manifests


def test_manifests_hold_what_is_chosen_and_there_and_what_is_not(program: Program) -> None:
    a, b, c, d = 'aaaaaaaaaaa', 'bbbbbbbbbbb', 'ccccccccccc', 'ddddddddddd'
    tags = {a: '/m/09x0r,/m/068hy', b: '/m/068hy', c: '/m/09x0r', d: '/m/068hy'}
    program.offer(*[f'{ytid}, 30.000, 40.000, "{of}"' for ytid, of in tags.items()])
    program.site.add(b, fault='private')
    program.run('--labels', '/m/068hy', '--no-descendants', '--limit', '2')
    (there,) = table(program.root / 'wavs' / 'eval.csv')
    indices = {row['mid']: row['index'] for row in csv.DictReader(stand_in.LABELS.decode().splitlines())}
    assert there['path'] == f'wavs/id_{a}.m4a'
    assert (there['ytid'], there['start'], there['end'], there['tags']) == (a, '30.0', '40.0', tags[a])
    assert there['classes'] == ','.join(indices[tag] for tag in tags[a].split(','))
    assert 'Speech' in there['labels']
    assert float(there['duration']) == pytest.approx(10, abs=0.1)
    (missing,) = table(program.root / 'wavs' / 'eval_missing.csv')
    assert (missing['ytid'], missing['reason'], missing['tags']) == (b, 'private', tags[b])
    assert 'Private video' in missing['message']
    assert missing['since'].endswith('Z')
    program.run('--limit', '1')
    assert [row['ytid'] for row in table(program.root / 'wavs' / 'eval.csv')] == [a]
    assert not table(program.root / 'wavs' / 'eval_missing.csv')


def test_a_message_of_several_lines_is_one_row(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'eval_segments.csv').write_bytes(stand_in.segments_csv(stand_in.rows(2)))
    with opened(tmp_path, preset='') as job:
        job.reader.finish()
        settle(job, *job.find('true', most=1), reason='what went wrong\nand where')
        _, manifest = download.write_manifests(job)
        missing, _ = table(manifest)
    assert missing['message'] == 'what went wrong\nand where'


def test_manifests_of_shards_are_made_by_merge(program: Program) -> None:
    program.offer(*stand_in.rows(6))
    program.run('--shard', '0/2')
    assert not (program.root / 'wavs' / 'eval.csv').exists()
    program.run('--merge')
    there, missing = (table(program.root / 'wavs' / f'eval{of}.csv') for of in ('', '_missing'))
    assert len(there) == len(program.metadata)
    assert len(there) + len(missing) == 6
    assert {row['reason'] for row in missing} == {'not tried'}


# ------------------------------------------------------------------------------------------------------------- headers


def test_reports_say_what_they_count(program: Program) -> None:
    program.offer(*ROWS)
    program.run(*WAV)
    for flags, head in (
        (['--report', *WAV], f'eval: wav-16000Hz in {program.root}'),
        (['--dry-run', '--limit', '2'], f'eval; limit 2: m4a in {program.root}'),
        (['--report', *WAV, '--shard', '0/2'], f'eval; shard 0/2: wav-16000Hz in {program.root}'),
    ):
        out = program.run(*flags).stdout.splitlines()
        assert head in out
        assert all(
            len(line) <= 80 for line in out if line != head and 'csv, read as' not in line and 'first row' not in line
        )


def test_a_report_says_what_else_is_there(program: Program) -> None:
    program.offer(*ROWS)
    program.run(*WAV)
    for mode in ('--report', '--dry-run'):
        assert '3 clips of wav-16000Hz are there, too' in program.run(mode).stdout


def test_columns_of_zeros_are_left_out(program: Program) -> None:
    program.offer(*ROWS)
    program.run()
    report, plan = program.run('--report').stdout, program.run('--dry-run').stdout
    assert 'there' in report
    assert not [word for word in ('left', 'lost', 'gone') if word in report.splitlines()[1]]
    assert 'shared' not in plan


def test_a_report_of_labels_shows_these_classes(program: Program) -> None:
    program.offer(f'{IDS[0]}, 30.000, 40.000, "/m/09x0r,/m/068hy"')
    program.run('--dry-run')
    shown = program.run('--report', '--labels', '/m/068hy', '--no-descendants').stdout.splitlines()
    assert shown[0].startswith('eval; labels /m/068hy: m4a in ')
    assert len(shown) == 3


def test_the_bar_counts_rows_that_wait(csvs: pathlib.Path) -> None:
    with opened(csvs) as job:
        job.reader.finish()
        bar = download.Progress(job)
        bar.bar.disable = True
        bar.show('', waiting=2)
        assert 'waiting=2' in bar.bar.postfix


@pytest.fixture
def csvs(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / 'eval_segments.csv').write_bytes(stand_in.segments_csv(ROWS))
    return tmp_path


# ----------------------------------------------------------------------------------------------------- lists, messages


def test_lists_are_found_beside_the_script(program: Program) -> None:
    source = program.script.read_text(encoding='utf-8')
    program.root.parent.mkdir(exist_ok=True)
    program.script = program.root.parent / 'download.py'
    program.script.write_text(source, encoding='utf-8')
    (program.root.parent / 'csvs').mkdir()
    (program.root.parent / 'csvs' / 'eval_segments.csv').write_bytes(stand_in.segments_csv(ROWS))
    said = program.run().stdout
    assert 'fetched eval_segments.csv' not in said
    assert len(program.metadata) == 3
    assert not (program.root / 'csvs' / 'eval_segments.csv').exists()


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--split', 'eval'], "--split is no flag; did you mean '--splits'?"),
        (['--spilts', 'eval'], "--spilts is no flag; did you mean '--splits'?"),
        (['--sample-rate', '16k'], "--sample-rate: '16k' is no number; use digits, such as 16000"),
        (['--retries', 'many'], "--retries: 'many' is no number"),
        (['--ydl-opts', '{x}'], "--ydl-opts: '{x}' is no JSON"),
        (['--no-descendants', '--labels', 'Domestic', 'animals'], "did you mean 'Domestic animals, pets'"),
        (['--splits', 'balanced'], "there is no list 'balanced'"),
        (['--splits', 'balanced'], "did you mean 'balanced_train'"),
        (['--splits', 'mine'], "there is no list 'mine'"),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_what_is_wrong_is_said_with_what_may_be_meant(program: Program, flags: list[str], words: str) -> None:
    program.offer(*ROWS)
    said = program.run(*flags, status=2).stderr
    assert words in said
    assert said.count('\n') == 1


def test_underscores_will_do(program: Program) -> None:
    program.offer(*ROWS)
    program.run('--limit', '1', '--ext', 'wav', '--sample_rate=16000')
    assert set(rates(program).values()) == {16000}


def test_a_line_to_paste_is_of_the_same_job(program: Program) -> None:
    program.offer(*ROWS)
    said = program.run('--shard', '0/1', '--shard', '1/2', *WAV).stdout
    (line,) = [line for line in said.splitlines() if '--merge' in line]
    words = shlex.split(line.partition(' makes')[0])
    assert words[:2] == ['python', 'download.py']
    command = [*program.command()[:2], *words[2:], *QUICK]
    subprocess.run(command, env=program.env, check=True, capture_output=True)
    assert program.metadata
    assert {record['ext'] for record in program.metadata.values()} == {'wav'}

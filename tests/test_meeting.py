"""Ledgers that meet: what one takes over from another, of its lists, fates and names, and what it must not."""

import gzip
import json
import random
import sqlite3
import time

import pytest

import download
import youtube as stand_in
from conftest import Program

VIDEOS = [f'abcdefghij{n}' for n in range(10)]


def put(program: Program, content: str, name: str = 'my.csv') -> None:
    """A list of one's own."""
    path = program.root / 'csvs' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def manifest(program: Program, name: str = 'my.csv') -> list[str]:
    return (program.root / 'wavs' / name).read_text().splitlines()[1:]


def test_a_list_that_another_has_read_otherwise_is_read_anew(program: Program) -> None:
    put(program, 'vid,a,b\n' + ''.join(f'{ytid},{10 * n},{10 * n + 5}\n' for n, ytid in enumerate(VIDEOS)))
    program.run('--splits', 'my', '--columns', '{"ytid": "vid", "start": "b"}', '--shard', '0/2')
    program.run('--splits', 'my', '--columns', '{"ytid": "vid", "start": "a"}')
    starts = program.ask('SELECT start_ms FROM asks JOIN clip c ON c.id = clip ORDER BY position')
    assert starts == [(10_000 * n,) for n in range(10)]


def test_an_older_list_of_a_shard_does_not_come_back(program: Program) -> None:
    put(program, 'ytid,start,label\n' + ''.join(f'{ytid},10,Dog\n' for ytid in VIDEOS))
    for shard in ('0/2', '1/2'):
        program.run('--splits', 'my', '--shard', shard)
    time.sleep(0.02)  # a file system's clock may be coarse
    put(program, 'ytid,start,label\n' + ''.join(f'{ytid},10,Cat\n' for ytid in VIDEOS[:6]))
    program.run('--splits', 'my')
    for path in (program.root / 'wavs/ledgers').glob('*-of-2.sqlite3'):  # as whoever opens one does
        with sqlite3.connect(path) as db:
            db.execute("INSERT OR REPLACE INTO state VALUES ('writer', 'somebody')")
        db.close()
    program.run('--splits', 'my', '--merge')
    assert len(manifest(program)) == 6
    assert {record['labels'][0] for record in program.metadata.values() if 'labels' in record} == {'Cat'}


def test_a_list_of_which_nobody_said_how_it_was_read_is_taken_further(program: Program) -> None:
    """As earlier versions merged, while shards were running."""
    program.offer(*(f'{ytid}, 10.000, 20.000, "/m/09x0r"' for ytid in VIDEOS[:8]))
    for shard in ('0/2', '1/2'):
        program.run('--shard', shard)
    program.run('--merge')
    with sqlite3.connect(program.root / 'wavs/m4a.sqlite3') as db:
        db.execute("DELETE FROM state WHERE name LIKE 'form %' OR name LIKE 'learned %' OR name = 'written'")
        db.execute('DELETE FROM asks WHERE position > 2')
        db.execute('UPDATE list SET rows = 3, lines = 3, whole = 0')
    db.close()
    assert '8 records' in program.run('--merge').stdout


def test_a_merged_ledger_knows_whose_files_its_clips_have(program: Program) -> None:
    program.offer(*(f'{ytid}, 10.000, 20.000, "/m/09x0r"' for ytid in VIDEOS[:4]))
    wav = ['--ext', 'wav', '--sample-rate', '16000']
    for shard in ('0/2', '1/2'):
        program.run(*wav, '--shard', shard)
    program.run(*wav, '--merge')
    for path in (program.root / 'wavs/ledgers').glob('*-of-2.sqlite3'):
        path.unlink()
    refused = program.run('--ext', 'wav', '--sample-rate', '32000', status=2)
    assert 'holds 4 clips of wav-16000Hz' in refused.stderr


def test_a_ledger_that_never_began_is_none(program: Program) -> None:
    """As a kill -9 leaves it, before its first commit."""
    program.offer(*(f'{ytid}, 10.000, 20.000, "/m/09x0r"' for ytid in VIDEOS[:2]))
    (program.root / 'wavs/ledgers').mkdir(parents=True)
    (program.root / 'wavs/ledgers/m4a-1-of-8.sqlite3').touch()
    program.run()
    assert '2 records' in program.run('--merge').stdout


def test_a_look_counts_what_shards_have_done(program: Program) -> None:
    program.offer(*(f'{ytid}, 10.000, 20.000, "/m/09x0r"' for ytid in VIDEOS[:6]))
    for shard in ('0/2', '1/2'):
        program.run('--shard', shard)
    assert 'to do: about 0 MB' in program.run('--dry-run').stdout
    assert program.run('--report').stdout.splitlines()[-1].split()[1:] == ['6', '6']


def test_shards_wait_for_each_other_to_open(program: Program) -> None:
    program.offer(*(f'{ytid}, 10.000, 20.000, "/m/09x0r"' for ytid in VIDEOS[:6]))
    (program.root / 'wavs').mkdir(parents=True)
    with download.claim(program.root / 'wavs/m4a-ledgers'):
        shards = [program.start('--shard', f'{n}/2') for n in range(2)]
        time.sleep(5)  # longer than the ledger of all is waited for
        assert [shard.poll() for shard in shards] == [None, None]
    for shard in shards:
        _, err = shard.communicate(timeout=100)
        assert shard.returncode == 0, err


@pytest.mark.parametrize('chosen', [[], ['--labels', 'Speech']], ids=['all', 'some'])
def test_again_asks_for_rows_that_were_not_read_before(program: Program, chosen: list[str]) -> None:
    for split, letter in (('eval', 'e'), ('balanced_train', 'b')):
        program.offer(*(f'{letter}bcdefghij{n}, 10.000, 20.000, "/m/09x0r"' for n in range(3)), split=split)
    splits = ['--splits', 'eval', 'balanced_train', *chosen]
    program.site.files['ontology.json'] = stand_in.ONTOLOGY
    program.site.healthy.fault = 'age'
    program.run(*splits, '--ext', 'wav')
    program.site.healthy.fault = ''
    program.run(*splits, '--again', 'age')
    assert len(program.metadata) == 6


def test_remake_takes_from_the_other_make_what_it_replaces_and_no_more(program: Program) -> None:
    wav = ['--ext', 'wav', '--sample-rate', '16000']
    program.offer(f'{VIDEOS[0]}, 0.000, 8.500, "/m/09x0r"', f'{VIDEOS[1]}, 10.000, 20.000, "/m/09x0r"')
    program.run(*wav)
    program.run(*wav, '--name', '{ytid}')
    (program.root / 'csvs/eval_segments.csv').unlink()
    program.offer(f'{VIDEOS[0]}, 0.000, 10.000, "/m/09x0r"', f'{VIDEOS[1]}, 10.000, 20.000, "/m/09x0r"')
    program.run('--ext', 'wav', '--sample-rate', '32000', '--remake')
    left = program.ask('SELECT ytid, status FROM clip ORDER BY ytid', 'ledgers/wav-16000Hz')
    assert left == [(VIDEOS[0], None), (VIDEOS[1], None)]


def test_a_merge_chooses_as_the_run_did_where_classes_have_other_names(program: Program) -> None:
    tags = [*stand_in.TAGS, '/m/zz00', '/m/zz01']  # the last are not among AudioSet's 527
    chance, videos = random.Random(0), [f'abcdefghi{n:02}' for n in range(60)]
    rows = [f'{ytid}_30000\t1.0\t2.0\t{tag}' for ytid in videos for tag in chance.sample(tags, 2)]
    head = 'segment_id\tstart_time_seconds\tend_time_seconds\tlabel'
    put(program, '\n'.join([head, *rows, '']), 'audioset_eval_strong.tsv')
    put(program, ''.join(f'{tag}\tName {tag}\n' for tag in tags), 'mid_to_display_name.tsv')
    chosen = ['--splits', 'eval_strong', '--per-label', '2']
    program.run(*chosen)
    made = {name: manifest(program, name) for name in ('eval_strong.csv', 'eval_strong_missing.csv')}
    (program.root / 'wavs/eval_strong.csv').unlink()
    program.run(*chosen, '--merge')
    assert {name: manifest(program, name) for name in made} == made
    assert made['eval_strong.csv']
    assert not made['eval_strong_missing.csv']


# ------------------------------------------------------------------------------------------------------ lists to mend
def test_a_list_that_is_refused_is_refused_again(program: Program) -> None:
    put(program, 'ytid,start\n' + ''.join(f'{ytid},x\n' for ytid in VIDEOS) + f'{VIDEOS[0]},3\n')
    for _ in range(2):
        assert 'rows are refused' in program.run('--splits', 'my', '--dry-run', status=2).stderr


@pytest.mark.parametrize('flags', [['--dry-run'], []], ids=['looking', 'running'])
def test_half_a_packed_list_is_one_line(program: Program, flags: list[str]) -> None:
    whole = gzip.compress(('ytid,start\n' + '\n'.join(f'{n:011},10' for n in range(20_000))).encode())
    put(program, '')
    (program.root / 'csvs/my.csv').unlink()
    (program.root / 'csvs/my.csv.gz').write_bytes(whole[: len(whole) // 2])
    said = program.run('--splits', 'my', *flags, status=2)
    assert 'my.csv.gz: Compressed file ended' in said.stderr
    assert said.stderr.count('\n') == 1


def test_a_column_that_no_list_has_is_refused(program: Program) -> None:
    put(program, f'ytid,from\n{VIDEOS[0]},77\n')
    said = program.run('--splits', 'my', '--columns', '{"start": "form"}', status=2)
    assert "columns: no list has a column 'form'; did you mean 'from'?" in said.stderr


def test_nan_in_a_list_of_json_is_nothing(program: Program) -> None:
    put(program, f'{{"ytid": "{VIDEOS[0]}", "start": 10, "snr": NaN}}\n', 'my.jsonl')
    program.run('--splits', 'my')
    for path in (program.root / 'audioset_metadata.json', program.root / 'wavs/metadata.jsonl'):
        json.loads(path.read_text(), parse_constant=int)  # which refuses it

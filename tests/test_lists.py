"""Lists of other forms, how they share clips, and the choice of rows by class."""

import csv
import io
import json
import pathlib
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import download
import youtube as stand_in
from conftest import Program, opened, settle

A, B, C = 'aaaaaaaaaaa', 'b_b-bbbbbb_', '-cccccccccc'
STRONG = f"""segment_id	start_time_seconds	end_time_seconds	label
{A}_30000	2.627	7.237	/m/053hz1
{A}_30000	0.000	10.000	/m/09x0r
{B}_20500	1.000	2.000	/m/09x0r
{A}_30000	8.000	9.000	/m/053hz1
"""
NAMES = '/m/053hz1\tCheering\n/m/09x0r\tSpeech, strongly\n'
AUDIOCAPS = f"""audiocap_id,youtube_id,start_time,caption
1,{A},30,"A man speaks, then a crowd cheers"
2,{B},20,A dog barks
3,{A},30,Someone talks
4,{A},50,"Rain ""falls"" on a roof"
"""
VGGSOUND = f'{A},30,playing cello,train\n{A},40,"dog barking, loudly",test\n{B},000020,playing cello,test\n'
ONTOLOGY = [
    {'id': '/m/animal', 'name': 'Animal', 'child_ids': ['/m/dog', '/m/cat'], 'restrictions': ['abstract']},
    {'id': '/m/dog', 'name': 'Dog', 'child_ids': ['/m/bark']},
    {'id': '/m/cat', 'name': 'Cat', 'child_ids': []},
    {'id': '/m/bark', 'name': 'Bark', 'child_ids': []},
]
LABELS = 'index,mid,display_name\n0,/m/dog,"Dog"\n1,/m/cat,"Cat"\n2,/m/bark,"Bark"\n3,/m/rain,"Rain, drizzle"\n'


def put(program: Program, **lists: str) -> None:
    """Write lists into csvs/, the file names with _dot_ for the dot."""
    csvs = program.root / 'csvs'
    csvs.mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (csvs / name.replace('_dot_', '.')).write_text(text, encoding='utf-8')


def segments(folder: pathlib.Path, name: str, text: str) -> list[download.Segment]:
    (folder / name).write_text(text, encoding='utf-8')
    with opened(folder, name.partition('.')[0].removesuffix('_segments')) as job:
        return list(job.rows())


# -------------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ('name', 'text', 'rows'),
    [
        pytest.param('vggsound.csv', VGGSOUND, [(A, 30, 40), (A, 40, 50), (B, 20, 30)], id='VGGSound'),
        pytest.param('audiocaps_val.csv', AUDIOCAPS, [(A, 30, 40), (B, 20, 30), (A, 50, 60)], id='AudioCaps'),
        pytest.param(
            'mine.csv', f'Label,End Time,Start Time,YTID\nx,4.5,2,{A}\n', [(A, 2, 4.5)], id='a header of its own'
        ),
        pytest.param('mine.tsv', f'video_id\tstart\tduration\n{A}\t2\t3\n', [(A, 2, 5)], id='tabs, a duration'),
        pytest.param(
            'mine.csv', f'\ufeff"youtube_id","start"\r\n"{A}","7"\r\n', [(A, 7, 17)], id='BOM, quotes, CRLF, no end'
        ),
        pytest.param(
            'mine_segments.csv', f'# x\n{A}, 1, 3, "/m/1"\n{A}, 8, 9, "/m/1"', [(A, 1, 3), (A, 8, 9)], id='as AudioSet'
        ),
        pytest.param('mine.tsv', f'{A}\t1\t4\t/m/1\n', [(A, 1, 4)], id='as AudioSet, with tabs'),
        pytest.param(
            'mine.csv', f'segment_id,ytid,start,end\n7,{A},1,11\n', [(A, 1, 11)], id='an id of its own for rows'
        ),
        pytest.param('mine.csv', f'{A},30,"car, train",test\n', [(A, 30, 40)], id='VGGSound, a comma first'),
        pytest.param('mine.csv', f'caption,ytid,start\n#1 fan,{A},1\n', [(A, 1, 11)], id='a number sign'),
        pytest.param('mine.csv', f'ytid,start,end\n{A},5,8\n{A},5,25\n', [(A, 5, 8), (A, 5, 25)], id='two lengths'),
        pytest.param('mine.csv', f'{A},1.5,3,/m/1,/m/2\n', [(A, 1.5, 3)], id='as AudioSet, without quotes'),
    ],
)
def test_forms(tmp_path: pathlib.Path, name: str, text: str, rows: list[tuple]) -> None:
    found = segments(tmp_path, name, text)
    assert [segment[:3] for segment in found] == rows
    marks = [f'{start * 1000:.0f}' + (f'_{end * 1000:.0f}' if end - start != 10 else '') for _, start, end in rows]
    assert [segment.id for segment in found] == [
        f'id_{ytid}_{mark}' for (ytid, *_), mark in zip(rows, marks, strict=True)
    ]


@pytest.mark.parametrize(
    'text',
    [
        pytest.param('<html>\n', id='a page'),
        pytest.param('name,start\nx,1\n', id='no id'),
        pytest.param('', id='empty'),
    ],
)
def test_what_is_no_list_is_refused_with_the_expected_forms(tmp_path: pathlib.Path, text: str) -> None:
    with pytest.raises(
        download.UsageError, match=r'mine\.csv: its first line .* expected a head that names the column of the video'
    ):
        segments(tmp_path, 'mine.csv', text)


def test_bad_lines_are_named_and_the_rest_survives(program: Program) -> None:
    put(program, caps_dot_csv=f'{AUDIOCAPS}5,{C},soon,x\n6,{C},1,"never closed\n7,{C}\n8,{C},1,x\n')
    said = program.run('--splits', 'caps')
    for line, why in [(6, "column start_time: 'soon' is no time"), (7, 'unexpected end of data'), (8, '2 of 4 cells')]:
        assert f'caps.csv, line {line}: skipped, {why}' in said.stdout
    assert 'rows skipped            3' in said.stdout
    assert len(program.metadata) == 4


TEXT = st.text(st.characters(exclude_categories=['Cs', 'Cc']), min_size=1, max_size=20).filter(
    lambda text: text == text.strip()
)
CLIPS = st.tuples(st.from_regex(r'[A-Za-z0-9_-]{11}', fullmatch=True), st.integers(0, 600_000), TEXT)


@given(st.lists(CLIPS, min_size=1, max_size=20), st.sampled_from(',\t'))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], separator: str) -> None:
    out = io.StringIO(newline='')
    written = csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL)
    written.writerow(['caption', 'start', 'youtube_id'])
    written.writerows((caption, start / 1000, ytid) for ytid, start, caption in rows)
    csvs = tmp_path_factory.mktemp('csvs')
    found = segments(csvs, 'mine.csv', out.getvalue())
    expected: dict[tuple, list[str]] = {}
    for ytid, start, caption in rows:
        expected.setdefault((ytid, start), []).append(caption)
    assert [(segment.ytid, round(segment.start * 1000)) for segment in found] == list(expected)
    with opened(csvs, 'mine') as job:
        job.reader.finish()
        more = [json.loads(extra) for (extra,) in job.db.execute('SELECT extra FROM asks ORDER BY position')]
    assert [told['captions'] for told in more] == [list(dict.fromkeys(told)) for told in expected.values()]
    assert len({segment.id for segment in found}) == len(found)


# --------------------------------------------------------------------------------------------------- records, sharing


def test_all_captions_of_a_clip_and_a_clip_for_each_start(program: Program) -> None:
    put(program, audiocaps_val_dot_csv=AUDIOCAPS)
    program.run('--splits', 'audiocaps_val')
    records = program.metadata
    assert records[f'id_{A}_30000']['captions'] == ['A man speaks, then a crowd cheers', 'Someone talks']
    assert records[f'id_{A}_50000']['captions'] == ['Rain "falls" on a roof']
    assert len(records) == len(program.clips()) == 3
    assert program.clip(f'{A}_50000').name == f'id_{A}_50000.m4a'
    assert program.site.counts['player'] == 3
    assert '3 settled (3 done), 0 to do' in program.run('--splits', 'audiocaps_val').stdout


def test_vggsound_has_labels_and_subsets(program: Program) -> None:
    put(program, vggsound_dot_csv=VGGSOUND)
    program.run('--splits', 'vggsound')
    record = program.metadata[f'id_{A}_40000']
    assert (record['labels'], record['tags'], record['subset']) == (['dog barking, loudly'], [], 'test')


def test_a_video_that_is_gone_is_gone_at_every_start(program: Program) -> None:
    program.offer(f'{A}, 10.000, 20.000, "/m/09x0r"')
    program.site.add(A, fault='private')
    program.run()
    put(program, vggsound_dot_csv=VGGSOUND)
    asked = program.site.asked['player', A]
    program.run('--splits', 'vggsound')
    assert program.site.asked['player', A] == asked
    assert list(program.metadata) == [f'id_{B}_20000']


def test_what_is_gone_and_was_there_after_all(tmp_path: pathlib.Path) -> None:
    """A verdict on a video holds for all its clips, and one clip that is made takes it back from them all."""
    (tmp_path / 'mine.csv').write_text(f'ytid,start\n{A},10\n{A},20\n{A},30\n{A},40\n{B},10\n')
    (tmp_path / 'more.csv').write_text(f'ytid,start\n{A},50\n{A},10\n')
    statuses, ledger = 'SELECT ifnull(status, reason) FROM clip ORDER BY id', tmp_path / 'ledger'
    with opened(tmp_path, 'mine', ledger=ledger) as job:
        one, two, three, four, other = job.rows()
        settle(job, one)
        settle(job, two, reason='too short')
        assert len(job.find(download.TO_DO)) == 3
        settle(job, three, reason='age')
        assert [segment.ytid for segment in job.find(download.TO_DO)] == [B]
        assert job.db.execute(statuses).fetchall() == [('done',), ('gone',), ('gone',), ('gone',), (None,)]
    with opened(tmp_path, 'mine', 'more', ledger=ledger) as job:
        job.reader.finish()
        assert {segment.start for segment in job.find(download.TO_DO)} == {10, 50}, 'one was there before it was gone'
        download.reopen_gone(job, ['age'])
        settle(job, four)
        assert {segment.start for segment in job.find("c.status = 'gone'")} == {20}
        assert {segment.start for segment in job.find(download.TO_DO) if segment.ytid == A} == {30, 50}


@pytest.mark.parametrize('at_once', [True, False], ids=['in one run', 'one after the other'])
def test_other_lists_share_the_clips_of_audioset(program: Program, at_once: bool) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"', f'{B}, 70.000, 80.000, "/m/068hy"')
    put(program, audiocaps_val_dot_csv=AUDIOCAPS)
    if not at_once:
        program.run()
    program.run('--splits', 'audiocaps_val', 'eval')
    records = program.metadata
    assert sorted(records) == [f'id_{A}', f'id_{A}_50000', f'id_{B}', f'id_{B}_20000']
    assert records[f'id_{A}']['captions'] == ['A man speaks, then a crowd cheers', 'Someone talks']
    assert records[f'id_{A}']['labels'] == ['Speech']
    assert records[f'id_{A}']['lists'] == ['eval', 'audiocaps_val']
    assert 'captions' not in records[f'id_{B}']
    assert program.site.counts['player'] == 4
    lines = len(program.settled)
    assert '0 to do' in program.run('--splits', 'audiocaps_val', 'eval').stdout
    assert (len(program.settled), program.metadata, program.site.counts['player']) == (lines, records, 4)


def test_a_clip_of_other_seconds_is_another_clip(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"', f'{A}, 70.000, 80.000, "/m/09x0r"')
    put(program, mine_dot_csv=f'ytid,start,end,label\n{A},30,50,long\n{A},70,80,late\n{A},30,40,same\n')
    program.run('--splits', 'eval', 'mine')
    records = program.metadata
    assert {name: record.get('also', record['labels']) for name, record in records.items()} == {
        f'id_{A}': [{'list': 'mine', 'field': 'labels', 'values': ['same']}],
        f'id_{A}_30000_50000': ['long'],
        f'id_{A}_70000': ['late'],
    }
    assert records[f'id_{A}_30000_50000']['duration'] == pytest.approx(20, abs=0.1)


def test_a_clip_that_another_list_brought_gets_audiosets_labels_later(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    put(program, vggsound_dot_csv=VGGSOUND)
    program.run('--splits', 'vggsound')
    clips, asked = program.clips(), program.site.counts['player']
    program.run()
    record = program.metadata[f'id_{A}_30000']
    assert (record['labels'], record['split'], record['lists']) == (['Speech'], 'eval', ['eval', 'vggsound'])
    assert {one['field']: one['values'] for one in record['also']} == {'labels': ['playing cello'], 'subset': ['train']}
    assert (program.clips(), program.site.counts['player']) == (clips, asked), 'its name never changes'


def test_a_row_that_has_changed(program: Program) -> None:
    program.offer(*(f'{ytid}, 30.000, 40.000, "/m/09x0r"' for ytid in (A, B, C)))
    program.run()
    put(program, eval_segments_dot_csv=f'{A}, 50.000, 60.000, "/m/09x0r"\n{B}, 30.000, 40.000, "/m/068hy"\n')
    assert '2 rows, 1 settled (1 done), 1 to do' in program.run().stdout
    records = {name: (record['start'], record['labels']) for name, record in program.metadata.items()}
    assert records == {f'id_{A}_50000': (50, ['Speech']), f'id_{B}': (30, ['Domestic animals, pets'])}
    assert program.site.counts['player'] == 4


def test_strong_labels_and_captions_in_one_run(program: Program) -> None:
    offer_strong(program)
    put(program, caps_dot_csv=AUDIOCAPS)
    program.run('--splits', 'caps', 'eval_strong')
    record = program.metadata[f'id_{A}']
    assert (record['events'], len(record['captions'])) == (EVENTS, 2)
    assert program.site.asked['player', A] == 2, 'at 30 and at 50 s'
    assert '0 to do' in program.run('--splits', 'caps', 'eval_strong').stdout


def test_rows_that_share_clips_are_counted_where_they_are(program: Program) -> None:
    offer_strong(program)
    program.offer(f'{A}, 30.000, 40.000, "/m/068hy"')
    program.run()
    plan = program.run('--splits', 'eval', 'eval_strong', '--dry-run').stdout
    assert re.search(r'^eval_strong +2 +0 +0 +1 +1$', plan, re.M), plan
    report = program.run('--splits', 'eval', 'eval_strong', '--report').stdout
    assert re.search(r'^Cheering +1 +1 +0', report, re.M), report


def test_events_that_are_none_are_skipped(program: Program) -> None:
    offer_strong(program)
    program.site.files['audioset_eval_strong.tsv'] += (
        f'{A}_30000\tnan\t1\t/m/09x0r\n{A}_30000\t1\tinf\t/m/09x0r\n'.encode()
    )
    assert program.run('--splits', 'eval_strong').stdout.count('.tsv, line ') == 2
    assert program.metadata[f'id_{A}']['events'] == EVENTS


def test_shards_share_out_and_annotate_all_lists(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"', f'{B}, 70.000, 80.000, "/m/068hy"')
    put(program, audiocaps_val_dot_csv=AUDIOCAPS)
    for shard in range(3):
        program.run('--splits', 'audiocaps_val', 'eval', '--shard', f'{shard}/3')
    program.run('--merge')
    sharded = program.metadata
    alone = Program(program.root.parent / 'alone', program.site)
    put(alone, audiocaps_val_dot_csv=AUDIOCAPS)
    alone.run('--splits', 'audiocaps_val', 'eval')
    assert sharded == alone.metadata
    assert len(sharded) == 4


def test_another_opinion_on_a_clip_is_kept_beside_the_first(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    put(program, mine_dot_csv=f'ytid,start,end,label\n{A},30,40,my class\n')
    program.run('--splits', 'eval', 'mine')
    record = program.metadata[f'id_{A}']
    assert record['labels'] == ['Speech']
    assert record['also'] == [{'list': 'mine', 'field': 'labels', 'values': ['my class']}]


def offer_strong(program: Program) -> None:
    program.site.files |= {'audioset_eval_strong.tsv': STRONG.encode(), 'mid_to_display_name.tsv': NAMES.encode()}


EVENTS = [
    {'start': 2.627, 'end': 7.237, 'tag': '/m/053hz1', 'label': 'Cheering'},
    {'start': 0.0, 'end': 10.0, 'tag': '/m/09x0r', 'label': 'Speech, strongly'},
    {'start': 8.0, 'end': 9.0, 'tag': '/m/053hz1', 'label': 'Cheering'},
]


def test_strong_labels(program: Program) -> None:
    offer_strong(program)
    program.run('--splits', 'eval_strong')
    record = program.metadata[f'id_{A}']
    assert (record['events'], record['tags']) == (EVENTS, ['/m/053hz1', '/m/09x0r'])
    assert (record['labels'], record['split']) == (['Cheering', 'Speech'], 'eval_strong')
    assert program.metadata[f'id_{B}']['start'] == 20.5


@pytest.mark.parametrize(
    'order', [['eval', 'eval_strong'], ['eval_strong', 'eval'], ['eval eval_strong']], ids=' then '.join
)
def test_weak_and_strong_labels_share_clips_in_whatever_order(program: Program, order: list[str]) -> None:
    offer_strong(program)
    program.offer(f'{A}, 30.000, 40.000, "/m/068hy"')
    for splits in order:
        program.run('--splits', *splits.split())
    record = program.metadata[f'id_{A}']
    assert (record['events'], record['tags'], record['split']) == (EVENTS, ['/m/068hy'], 'eval')
    assert record['labels'] == ['Domestic animals, pets']
    assert program.site.counts['player'] == len(program.metadata) == 2
    lines = len(program.settled)
    program.run('--splits', 'eval_strong', 'eval')
    assert len(program.settled) == lines


# -------------------------------------------------------------------------------------------------- choosing by class

ROWS = [
    f'{n:011}, 30.000, 40.000, "{tags}"'
    for n, tags in enumerate(['/m/dog', '/m/bark,/m/rain', '/m/cat', '/m/rain', '/m/other'])
]


@pytest.mark.parametrize(
    ('flags', 'chosen'),
    [
        pytest.param(['--labels', 'dog'], [0, 1], id='descendants'),
        pytest.param(['--labels', 'Dog', '--no-descendants'], [0], id='no descendants'),
        pytest.param(['--labels', 'ANIMAL'], [0, 1, 2], id='a node without rows of its own'),
        pytest.param(['--labels', '/m/animal', '--exclude', 'Rain, drizzle'], [0, 2], id='MID, exclude'),
        pytest.param(['--exclude', 'Animal'], [3, 4], id='exclude alone'),
        pytest.param(['--labels', 'Rain, drizzle', '/m/cat'], [1, 2, 3], id='several'),
    ],
)
def test_choosing_by_label(program: Program, flags: list[str], chosen: list[int]) -> None:
    program.offer(*ROWS)
    program.site.files |= {'class_labels_indices.csv': LABELS.encode(), 'ontology.json': json.dumps(ONTOLOGY).encode()}
    program.run(*flags)
    assert sorted(program.metadata) == [f'id_{n:011}' for n in chosen]
    assert (program.root / 'csvs' / 'ontology.json').exists() == ('--no-descendants' not in flags), (
        'only when it is needed'
    )


@pytest.mark.parametrize(
    ('name', 'why'),
    [
        ('Dgo', "'Dgo' is no class of these lists; did you mean 'Dog'"),
        ('xyzzyx', "'xyzzyx' is no class of these lists$"),
        ('/m/dgo', "'/m/dgo' is no class"),
    ],
)
def test_an_unknown_class_is_refused_with_the_nearest(program: Program, name: str, why: str) -> None:
    program.offer(*ROWS)
    program.site.files |= {'class_labels_indices.csv': LABELS.encode(), 'ontology.json': json.dumps(ONTOLOGY).encode()}
    err = program.run('--labels', name, status=2).stderr
    assert err.count('\n') == 1
    assert re.search(why, err, re.M), err
    assert not program.site.counts['player']


def test_classes_without_mids_are_chosen_by_name(program: Program) -> None:
    put(program, vggsound_dot_csv=VGGSOUND)
    program.run('--splits', 'vggsound', '--labels', 'Playing Cello', '--no-descendants')
    assert sorted(program.metadata) == [f'id_{A}_30000', f'id_{B}_20000']


CLASSES = st.lists(st.lists(st.sampled_from('abcdefg'), max_size=4, unique=True).map(tuple), max_size=60)


@given(CLASSES, st.integers(1, 5), st.integers(0, 3), st.sets(st.sampled_from('abc'), max_size=2))
def test_each_class_gets_its_number_and_no_row_is_without_need(
    rows: list[tuple], most: int, seed: int, labels: set[str]
) -> None:
    choice = download.Choice(labels, set(), most, seed)
    picked = choice.pick(rows)
    assert picked == choice.pick(rows), 'the same for a seed'
    count = Counter(name for row, taken in zip(rows, picked, strict=True) if taken for name in row)
    for name in labels or set('abcdefg'):
        assert count[name] >= min(most, sum(name in row for row in rows))
    for row, taken in zip(rows, picked, strict=True):
        counted = [name for name in row if not labels or name in labels]
        assert counted or not taken or not (row or labels), 'what has no class is taken'
        if counted and not taken:
            assert all(count[name] >= most for name in counted)
    if all(len(row) < 2 for row in rows):
        assert all(count[name] <= most for name in count)


def test_per_label_serves_the_rare_first(tmp_path: pathlib.Path) -> None:
    rows = [('common', 'rare')] * 3 + [('common',)] * 50
    picked = download.Choice(set(), set(), 3, 0).pick(rows)
    assert list(picked) == [1] * 3 + [0] * 50
    rows = [('a', 'b'), ('a',), ('b',), ('a', 'b')]
    assert download.Choice(set(), set(), 1, 0).pick(rows) in (b'\1\0\0\0', b'\0\1\1\0', b'\0\0\0\1'), (
        'none is needed twice'
    )
    (tmp_path / 'eval_segments.csv').write_bytes(stand_in.segments_csv(stand_in.rows(200)))
    chosen = []
    for seed in (0, 0, 1):
        with opened(tmp_path, choice=download.Choice(set(), set(), 5, seed)) as job:
            chosen.append([segment.ytid for segment in job.rows()])
    assert chosen[0] == chosen[1] != chosen[2]
    assert 5 <= len(chosen[0]) <= 15

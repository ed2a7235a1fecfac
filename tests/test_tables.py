"""Lists of clips as people publish them: how their cells are read, and that each of them brings its clips."""

import csv
import gzip
import io
import json
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import download
from conftest import Program, offset, opened

A, B, C = 'aaaaaaaaaaa', 'Yb_b-bbbbb_', '-cccccccccc'
EVENT = {'start': 1.5, 'end': 2.5, 'tag': '', 'label': 'Speech'}
MUSICCAPS = f"""ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id
{A},30,40,"/m/09x0r,/m/1","['low quality', 'sad']","A song.

It is sad, ""really"".",4
"""
LISTS = {  # a list as published -> what its rows ask for: s from and to, tags, labels, the rest
    'musiccaps.csv': (
        MUSICCAPS,
        (A, 30, 40, ['/m/09x0r', '/m/1'], []),
        {
            'captions': ['A song.\n\nIt is sad, "really".'],
            'row': [{'aspect_list': "['low quality', 'sad']", 'author_id': '4'}],
        },
    ),
    'kinetics.csv': (
        f'label,youtube_id,time_start,time_end,split,is_cc\nmaking a cake,{A},30,40,train,0\n',
        (A, 30, 40, [], ['making a cake']),
        {'subset': 'train', 'row': [{'is_cc': '0'}]},
    ),
    'vggsound.csv': (
        f'{A},30,"railroad car, train wagon",test\n',
        (A, 30, None, [], ['railroad car, train wagon']),
        {'subset': 'test'},
    ),
    'ave.txt': (
        f'Category&VideoID&Quality&StartTime&EndTime\nSpeech&{A}&good&1.5&2.5\n',
        (A, None, None, [], ['Speech']),
        {'events': [EVENT], 'row': [{'Quality': 'good'}]},
    ),
    'avspeech.csv': (f'{A},30.03,36.5,0.5,0.25\n', (A, 30.03, 36.5, [], []), {'row': [{'4': '0.5', '5': '0.25'}]}),
    'desed.tsv': (
        f'filename\tonset\toffset\tevent_label\nY{A}_30.000_40.000.wav\t1.5\t2.5\tSpeech\n',
        (A, 30, 40, [], ['Speech']),
        {'events': [EVENT]},
    ),
    'desed_weak.tsv': (
        f'filename\tevent_labels\nY{A}_30.000_40.000.wav\tSpeech,Dog\n',
        (A, 30, 40, [], ['Speech', 'Dog']),
        {},
    ),
    'auto_acd.csv': (f'id,caption\n{A}_000030,x\n', (A, 30, None, [], []), {'captions': ['x']}),
    'auto_acd_bare.csv': (f'id,caption\n{A},x\n', (A, None, None, [], []), {'captions': ['x']}),
    'audiosetcaps.csv': (f'id,caption\nY{A},x\n', (A, None, None, [], []), {'captions': ['x']}),
    'audiosetcaps_yt8m.csv': (f'id,caption\n_{A}_30_40,x\n', (A, 30, 40, [], []), {'captions': ['x']}),
    'wavcaps.json': (
        json.dumps({'num': 1, 'data': [{'id': f'Y{A}.wav', 'caption': 'x', 'duration': 10.0}]}, indent=2),
        (A, None, None, [], []),
        {'captions': ['x'], 'row': [{'duration': 10.0}]},
    ),
    'objects.json': (
        json.dumps([{'ytid': A, 'start': 30, 'end': 40.5, 'labels': ['a', 'b, c'], 'more': {'x': 1}}]),
        (A, 30, 40.5, [], ['a', 'b, c']),
        {'row': [{'more': {'x': 1}}]},
    ),
    'lines.jsonl': (
        f'{json.dumps({"video_id": A, "start": "0:30", "captions": ["x", "y"]})}\n',
        (A, 30, None, [], []),
        {'captions': ['x', 'y']},
    ),
    'one_a_line.json': (
        f'[\n{json.dumps({"id": A, "start": 30})},\n{json.dumps({"id": A, "caption": "x", "start": 30})}\n]'.replace(
            f'{{"id": "{A}", "start": 30}},\n', ''
        ),
        (A, 30, None, [], []),
        {'captions': ['x']},
    ),
    'ids.txt': (f'{A}\n', (A, None, None, [], []), {}),
    'links.txt': (f'https://www.youtube.com/watch?v={A}&t=30s\n', (A, 30, None, [], []), {}),
    'semicolons.csv': (f'id;start;end;label\n{A};0:30;00:00:40.5;Dog\n', (A, 30, 40.5, [], ['Dog']), {}),
    'ampersands.txt': (f'{A}&30&40&Dog\n', (A, 30, 40, [], ['Dog']), {}),
    'pandas.csv': (
        f',# YTID,start_seconds,end_seconds,positive_labels\n0,{A},30.0,40.0,"/m/09x0r,/m/1"\n',
        (A, 30, 40, ['/m/09x0r', '/m/1'], []),
        {},
    ),
    'reordered.csv': (
        f'# a\n# positive_labels, YTID, end_seconds, start_seconds\n"/m/09x0r,/m/1", {A}, 40.000, 30.000\n',
        (A, 30, 40, ['/m/09x0r', '/m/1'], []),
        {},
    ),
    'strong.tsv': (
        f'segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n{A}_5000\t1.5\t2.5\t/m/09x0r\n',
        (A, 5, None, ['/m/09x0r'], []),
        {'events': [{**EVENT, 'tag': '/m/09x0r'}]},
    ),
}


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)
    return path


def read(path: pathlib.Path, columns: dict[str, str] | None = None) -> list[download.Row | Exception]:
    return [row for _, row in download.read_rows(path, download.recognise(path, columns or {}), {'/m/09x0r': 'Speech'})]


def seconds(row: download.Row) -> tuple:
    return row.ytid, *(time if time is None else time / 1000 for time in (row.start, row.end))


@pytest.mark.parametrize('wrapped', ['', '.gz', 'BOM, CRLF'])
@pytest.mark.parametrize('name', LISTS)
def test_lists_as_published(tmp_path: pathlib.Path, name: str, wrapped: str) -> None:
    text, row, more = LISTS[name]
    if 'BOM' in wrapped:
        text = '\ufeff' + (text if 'musiccaps' in name else text.replace('\n', '\r\n'))
    (found,) = read(write(tmp_path / f'{name}{wrapped if wrapped == ".gz" else ""}', text))
    assert (*seconds(found), list(found.tags), list(found.labels)) == row
    assert found.more == more


@pytest.mark.parametrize(
    ('columns', 'text', 'row'),
    [
        pytest.param({'ytid': 'who', 'start': 'from'}, f'who,from\n{A},30\n', (A, 30, None), id='heads'),
        pytest.param({'start': '3', 'end': '2'}, f'{A},40,30\n', (A, 30, 40), id='numbers of columns without heads'),
        pytest.param({'start': ''}, f'ytid,start\n{A},30\n', (A, None, None), id='none'),
    ],
)
def test_columns_that_the_user_names(tmp_path: pathlib.Path, columns: dict, text: str, row: tuple) -> None:
    assert seconds(read(write(tmp_path / 'mine.csv', text), columns)[0]) == row


# ------------------------------------------------------------------------------------------------ a cell names a clip

IDS = st.from_regex(r'[A-Za-z0-9_-]{11}', fullmatch=True)
WAYS = {  # from id, start and end (ms) -> a cell, and which of the three it tells
    'id': (lambda ytid, start, end: ytid, 1),
    'Y': (lambda ytid, start, end: f'Y{ytid}', 1),
    'file': (lambda ytid, start, end: f'some/folder/Y{ytid}.wav', 1),
    'file of an id': (lambda ytid, start, end: f'{ytid}.m4a', 1),
    'start': (lambda ytid, start, end: f'{ytid}_{start / 1000}', 2),
    'start, end': (lambda ytid, start, end: f'Y{ytid}_{start / 1000:.3f}_{end / 1000:.3f}.flac', 3),
    '_, whole s': (lambda ytid, start, end: f'_{ytid}_{start // 1000}_{end // 1000}', 3),
    'six digits': (lambda ytid, start, end: f'{ytid}_{start // 1000:06}', 2),
    'ms': (lambda ytid, start, end: f'{ytid}_{start}_{end}.wav', 3),
    'link': (lambda ytid, start, end: f'https://www.youtube.com/watch?v={ytid}', 1),
    'link with start': (lambda ytid, start, end: f'https://youtube.com/watch?app=x&v={ytid}&t={start // 1000}s', 2),
    'short link': (lambda ytid, start, end: f'youtu.be/{ytid}?t={start // 60_000}m{start // 1000 % 60}s', 2),
    'embedded': (
        lambda ytid, start, end: f'http://m.youtube.com/embed/{ytid}?start={start // 1000}&end={end // 1000}',
        3,
    ),
}


@given(IDS, st.integers(0, 600), st.integers(10, 30), st.sampled_from(list(WAYS)))
def test_a_clip_is_read_back_in_whatever_way_it_is_named(ytid: str, start: int, length: int, way: str) -> None:
    clip = ytid, start * 1000, (start + length) * 1000
    make, tells = WAYS[way]
    assert download.read_clip(make(*clip), 'id') == (*clip[:tells], *[None] * (3 - tells))


@given(IDS, st.integers(0, 600_000))
def test_a_segment_id_of_audioset_tells_ms(ytid: str, start: int) -> None:
    assert download.read_clip(f'{ytid}_{start}', 'segment_id') == (ytid, start, None)


@pytest.mark.parametrize('cell', ['', 'short', A + 'a', f'{A}_', f'{A}_x', 'https://vimeo.com/12345', 'Yshort.wav'])
def test_what_names_no_clip(cell: str) -> None:
    with pytest.raises(download.UsageError, match='column id: .* names no video; expected an id of 11'):
        download.read_clip(cell, 'id')


TEXT = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\r\0'), max_size=20)
CLIPS = st.tuples(IDS, st.integers(0, 600_000), TEXT.map(str.strip), TEXT)
DIALECTS = st.tuples(
    st.sampled_from(',\t;&'), st.sampled_from(['\n', '\r\n']), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
)


@given(st.lists(CLIPS, min_size=1, max_size=20), DIALECTS)
def test_any_table_that_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], dialect: tuple
) -> None:
    out, (between, end, quoting) = io.StringIO(newline=''), dialect
    table = csv.writer(out, delimiter=between, lineterminator=end, quoting=quoting)
    table.writerow(['remark', 'caption', 'youtube_id', 'start'])
    table.writerows((f'x{remark}x', caption, ytid, start / 1000) for ytid, start, caption, remark in rows)
    found = read(write(tmp_path_factory.mktemp('csvs') / 'mine.csv', out.getvalue()))
    wanted = [
        (ytid, start, [caption] if caption else None, [{'remark': f'x{remark}x'}])
        for ytid, start, caption, remark in rows
    ]
    assert [(row.ytid, row.start, row.more.get('captions'), row.more['row']) for row in found] == wanted


@pytest.mark.parametrize(
    ('line', 'why'),
    [
        pytest.param(
            f'{B},soon,40,x', "column start: 'soon' is no time; expected seconds, as 30.5 or 1:05.5", id='time'
        ),
        pytest.param('B,30,40,x', "column ytid: 'B' names no video; expected an id of 11 characters", id='video'),
        pytest.param(f'{B},30', '2 of 4 cells; expected ytid, start, end, caption', id='too few cells'),
        pytest.param(f'{B},40,30,x', 'no clip from 40.0 to 30.0 s', id='reversed'),
        pytest.param(f'{B},30,40,"never closed', 'unexpected end of data', id='an open quote'),
    ],
)
def test_a_bad_row_costs_only_itself(tmp_path: pathlib.Path, line: str, why: str) -> None:
    rows = read(write(tmp_path / 'mine.csv', f'ytid,start,end,caption\n{A},1,2,x\n{line}\n{C},3,4,y\n'))
    assert [row.ytid for row in rows if isinstance(row, download.Row)] == [A, C]
    assert why in str(rows[1])


# ------------------------------------------------------------------------------------------------------------ the run


def put(program: Program, **lists: str) -> None:
    csvs = program.root / 'csvs'
    csvs.mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        write(csvs / name.replace('_dot_', '.'), text)


def test_every_form_brings_its_clips(program: Program) -> None:
    """All lists at once, each with a video of its own, which AudioSet has at 50 s."""
    expected, splits = {}, []
    for n, (name, (text, (_, start, end, tags, labels), more)) in enumerate(LISTS.items()):
        ytid = f'{n:02}{A[2:]}'
        put(program, **{name.replace('.', '_dot_'): text.replace(A, ytid)})
        splits.append(name.partition('.')[0])
        expected[ytid] = (50 if start is None else start, 10 if end is None else end - start, tags, labels, more)
    program.offer(*(f'{ytid}, 50.000, 60.000, "/m/068hy"' for ytid in expected))
    program.site.files['mid_to_display_name.tsv'] = b'/m/09x0r\tSpeech\n'
    for name in ('balanced_train', 'unbalanced_train'):
        program.offer(f'{C}, 0.000, 10.000, "/m/068hy"', split=name)
    program.run('--splits', *splits, '--ext', 'flac', '--num-processes', '2')
    records = {record['ytid']: record for record in program.metadata.values()}
    assert records.keys() == expected.keys()
    for ytid, (start, length, tags, labels, more) in expected.items():
        record = records[ytid]
        assert abs(offset(program.root / record['path'], start, length)) <= 0.002
        assert record['duration'] == pytest.approx(length, abs=0.01)
        for field, value in more.items():
            wanted = [{**event, 'label': 'Speech'} for event in value] if field == 'events' else value
            assert record[field] == wanted, ytid
        if start == 50:  # it is AudioSet's own clip, with its labels
            assert (record['id'], record['tags']) == (f'id_{ytid}', ['/m/068hy'])
            assert not labels or record['also'][0]['values'] == labels
        else:
            assert (record['tags'], record['labels'] if labels else []) == (tags, labels)


def test_ids_that_audioset_lacks(program: Program) -> None:
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    program.offer(f'{C}, 70.000, 80.000, "/m/09x0r"', split='balanced_train')
    program.offer(f'{"u" * 11}, 70.000, 80.000, "/m/09x0r"', split='unbalanced_train')
    put(program, some_dot_txt=f'{C}\n{A}\n', more_dot_txt=f'{A}\n{B}\n')
    program.run('--splits', 'some')
    assert sorted(program.metadata) == [f'id_{C}', f'id_{A}']
    assert not (program.root / 'csvs' / 'unbalanced_train_segments.csv').exists(), 'fetched only when needed'
    said = program.run('--splits', 'more').stdout
    assert f'more.txt, line 2: skipped, {B} is not in AudioSet' in said
    assert re.search(r'rows skipped +1$', said, re.M), said
    program.run('--splits', 'more', '--length', '4.5')
    record = program.metadata[f'id_{B}_0_4500']
    assert (record['start'], record['duration']) == (0, pytest.approx(4.5, abs=0.1))
    assert program.site.counts['player'] == 3


def test_audioset_saved_by_pandas_is_audioset(program: Program) -> None:
    rows = [f'{ytid}, 30.000, 40.000, "/m/09x0r,/m/068hy"' for ytid in (A, B, C)]
    head = '# YTID,start_seconds,end_seconds,positive_labels'
    saved = ''.join(f'{n},{row[:11]},30.0,40.0,"/m/09x0r,/m/068hy"\n' for n, row in enumerate(rows))
    put(program, eval_dot_csv=f',{head}\n{saved}')
    program.run('--preset', 'panns')
    records, player = program.metadata, program.site.counts['player']
    assert {record['path'] for record in records.values()} == {f'wavs/eval_segments/Y{ytid}.wav' for ytid in (A, B, C)}
    assert {(name, record['split']) for name, record in records.items()} == {(f'id_{y}', 'eval') for y in (A, B, C)}
    put(program, eval_segments_dot_csv='# x\n' + '\n'.join(rows))
    assert '3 settled (3 done)' in program.run('--preset', 'panns').stdout
    assert (program.metadata, program.site.counts['player']) == (records, player)


def test_lists_come_by_themselves(program: Program) -> None:
    program.site.files |= {
        'vggsound.csv': f'{A},30,Dog,train\n'.encode(),
        'val.csv': f'audiocap_id,youtube_id,start_time,caption\n1,{A},30,A dog barks\n'.encode(),
        'my_list.csv.gz': gzip.compress(f'{B};30;40\n'.encode()),
        'musiccaps-public.csv': MUSICCAPS.encode(),
    }
    address = 'https://example.com/lists/my_list.csv.gz?raw=true'
    put(program, musiccaps_dot_csv=f'ytid,start_s\n{C},30\n')
    program.run('--splits', 'vggsound', 'audiocaps_val', address, 'musiccaps')
    assert sorted(program.metadata) == sorted(f'id_{ytid}_30000' for ytid in (A, B, C)), 'what is in csvs/ wins'
    assert program.metadata[f'id_{A}_30000']['captions'] == ['A dog barks']
    assert (program.root / 'csvs' / 'my_list.csv.gz').exists()
    fetched = program.site.counts['csv']
    assert '3 settled' in program.run('--splits', 'vggsound', 'audiocaps_val', address, 'musiccaps').stdout
    assert program.site.counts['csv'] == fetched
    program.run('--splits', 'https://example.com/none.csv', status=2)


def test_nothing_of_a_list_is_lost(program: Program) -> None:
    """All rows of a clip, in both lists that have it."""
    put(program, one_dot_csv=f'ytid,start,mood\n{A},30,sad\n{A},30,gay\n', two_dot_csv=f'ytid,start,key\n{A},30,C\n')
    program.run('--splits', 'one', 'two')
    assert program.metadata[f'id_{A}_30000']['row'] == [{'mood': 'sad'}, {'mood': 'gay'}, {'key': 'C'}]


def test_a_dry_run_shows_how_lists_are_read(program: Program) -> None:
    put(program, musiccaps_dot_csv=MUSICCAPS, ids_dot_txt=f'{A}\n')
    program.offer(f'{A}, 30.000, 40.000, "/m/09x0r"')
    said = program.run('--splits', 'musiccaps', 'ids', '--dry-run').stdout
    assert re.search(
        r'^musiccaps\.csv, .*ytid = ytid, start = start_s, .*kept in row: aspect_list, author_id$', said, re.M
    )
    assert re.search(rf'^  first row: {A} from 30.0 to 40.0 s, \["Speech", "/m/1"\] .*A song', said, re.M)
    assert re.search(r'^ids\.txt, .*ytid = 1$', said, re.M)
    assert not program.site.counts['player']


def test_labels_of_any_list_choose(program: Program) -> None:
    rows = [(A, '/m/09x0r', 'barking'), (B, '', 'barking'), (C, '/m/09x0r', 'meowing')]
    put(program, mine_dot_csv='ytid,start,mids,label\n' + ''.join(f'{y},30,{tag},{label}\n' for y, tag, label in rows))
    plan = program.run('--splits', 'mine', '--labels', 'Barking', '--no-descendants', '--dry-run').stdout
    assert re.search(r'^mine +2 ', plan, re.M), plan
    plan = program.run(
        '--splits', 'mine', '--labels', 'speech', '--exclude', 'barking', '--no-descendants', '--dry-run'
    )
    assert re.search(r'^mine +1 ', plan.stdout, re.M), plan.stdout
    plan = program.run('--splits', 'mine', '--per-label', '1', '--dry-run').stdout
    assert re.search(r'^mine +2 ', plan, re.M), plan
    report = program.run('--splits', 'mine', '--report').stdout
    assert re.search(r'^barking +2 ', report, re.M), report


def test_a_list_that_is_mostly_refused_stops_the_run(program: Program) -> None:
    rows = [f'{n:011},{"soon" if n % 3 else 30}\n' for n in range(9)]
    put(program, mine_dot_csv='ytid,start\n' + ''.join(rows))
    failed = program.run('--splits', 'mine', status=2)
    assert "mine.csv, line 3: skipped, column start: 'soon' is no time" in failed.stdout
    assert re.search(r'mine\.csv: 6 of 9 rows are refused \(above\); it is read as .*ytid = ytid', failed.stderr)
    assert failed.stderr.count('\n') == 1
    assert not program.site.counts['player']


def test_other_columns_or_another_length_read_a_list_anew(tmp_path: pathlib.Path) -> None:
    write(tmp_path / 'mine.csv', f'ytid,a,b\n{A},10,20\n')
    for name in download.WEAK:
        write(tmp_path / f'{name}_segments.csv', f'{B}, 30.000, 40.000, "/m/1"\n')
    starts = []
    for settings in ({'length': 5.0}, {'length': 6.0}, {'columns': {'start': 'a'}}, {'columns': {'start': 'b'}}):
        with opened(tmp_path, 'mine', ledger=tmp_path / 'ledger', **settings) as job:
            starts += [(segment.start, segment.end) for segment in job.rows()]
    assert starts == [(0, 5), (0, 6), (10, 20), (20, 30)]


@pytest.mark.parametrize('name', ['ave.txt', 'musiccaps.csv', 'wavcaps.json', 'lines.jsonl', 'ids.txt'])
def test_a_list_that_is_interrupted_goes_on_where_it_was(tmp_path: pathlib.Path, name: str) -> None:
    text = LISTS[name][0]
    rows = text if name.endswith('.json') else text + ''.join(text[text.find('\n') + 1 :].replace(A, y) for y in (B, C))
    if name in ('lines.jsonl', 'ids.txt'):
        rows = ''.join(text.replace(A, ytid) for ytid in (A, B, C))
    elif name.endswith('.json'):
        rows = json.dumps({'data': [{'id': ytid} for ytid in (A, B, C)]})
    write(tmp_path / name, rows)
    write(tmp_path / 'eval_segments.csv', ''.join(f'{ytid}, 30.000, 40.000, "/m/1"\n' for ytid in (A, B, C)))
    for _ in range(3):
        with opened(tmp_path, name.partition('.')[0], ledger=tmp_path / 'ledger') as job:
            job.reader.step(1)
    with opened(tmp_path, name.partition('.')[0], ledger=tmp_path / 'ledger') as job:
        assert [segment.ytid for segment in job.rows()] == [A, B, C]
        assert job.db.execute('SELECT rows, skipped FROM list').fetchall()[-1] == (3, 0)


@pytest.mark.parametrize(
    ('columns', 'why'),
    [('{"who": "x"}', "columns = {'who': 'x'}: name columns for some of ytid, start"), ('{"ytid": 3}', 'name columns')],
)
def test_columns_that_mean_nothing(program: Program, columns: str, why: str) -> None:
    assert why in program.run('--columns', columns, status=2).stderr

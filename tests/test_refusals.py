"""What YouTube and the network can say instead of giving a clip, and what becomes of the row."""

import re

import pytest

from conftest import LOGIN, Program, give_cookies, offset
from download import judge
from youtube import Video

GOOD, BAD = 'ggggggggggg', 'bbbbbbbbbbb'
NETWORK = (
    'This video is restricted. '
    'Please check the Google Workspace administrator and/or the network administrator restrictions'
)

HATE = 'Learn more about combating hate speech in your country.'


def two_rows(program: Program, **video: object) -> None:
    program.offer(f'{BAD}, 30.000, 40.000, "/m/09x0r"', f'{GOOD}, 30.000, 40.000, "/m/09x0r"')
    program.site.videos[BAD] = Video(**video)


def faulty_rows(program: Program, faults: list[str], **video: object) -> dict[str, str]:
    """A row with each of these faults among twice as many good ones; returns fault -> id."""
    ids = {fault: f'bad{n:08}' for n, fault in enumerate(faults)}
    good = [f'good{n:07}' for n in range(2 * len(ids) + 2)]
    program.offer(*(f'{ytid}, 30.000, 40.000, "/m/09x0r"' for ytid in [*good[::2], *ids.values(), *good[1::2]]))
    program.site.videos |= {ytid: Video(fault=fault, **video) for fault, ytid in ids.items()}
    return ids


def test_gone(program: Program) -> None:
    faults = ['private', 'removed', 'terminated', 'copyright', 'country', 'age', 'members', 'unavailable']
    ids = faulty_rows(program, faults)
    said = program.run()
    assert {fault: program.reasons[ytid] for fault, ytid in ids.items()} == {fault: ('gone', fault) for fault in faults}
    assert len(program.metadata) == len(program.reasons) - len(faults)
    assert all(f'  {fault} ' in said.stdout for fault in faults)
    asked = program.site.counts['player']
    program.run()
    assert program.site.counts['player'] == asked


def test_words_about_a_network_are_of_the_route_if_they_meet_every_row(program: Program) -> None:
    program.offer(*(f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(12)))
    program.site.healthy = Video(says=('ERROR', 'Video unavailable', NETWORK))
    said = program.run('--give-up-after', '1', status=1)
    assert 'every row fails (restricted: ' in said.stdout
    assert not program.reasons


def test_a_network_that_hides_some_videos_holds_up_no_others(program: Program) -> None:
    rows = [f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(30)]
    program.offer(*rows)
    for row in rows[::10]:
        program.site.videos[row[:11]] = Video(says=('ERROR', 'Video unavailable', NETWORK))
    said = program.run('--retries', '1', '--pause', '600', '--longest-pause', '600', status=1)
    assert re.search(r'done +27\n.*failed +3\n +restricted +3', said.stdout, re.S)


@pytest.mark.parametrize(
    ('clients', 'flags', 'account'),
    [
        ({'VISIONOS': 'kids'}, ['--ydl-opts', '{"js_runtimes": {}}'], False),
        ({'VISIONOS': 'kids', 'WEB_EMBEDDED_PLAYER': 'embed', 'TVHTML5': 'reload'}, [], False),
        ({'WEB_EMBEDDED_PLAYER': 'embed', 'TVHTML5': 'reload', 'WEB_CREATOR': 'bare'}, [], True),
        ({'VISIONOS': 'kids', 'WEB_EMBEDDED_PLAYER': 'bare', 'TVHTML5': 'bare'}, [], False),
    ],
    ids=['no JavaScript', 'not to be embedded', 'an account', 'no addresses'],
)
def test_a_video_that_plays_for_somebody_is_not_gone(
    program: Program, clients: dict[str, str], flags: list[str], account: bool
) -> None:
    two_rows(program, clients=clients)
    if account:
        give_cookies(program, LOGIN)
    program.run(*flags, status=1)
    assert program.reasons == {BAD: ('failed', 'no address'), GOOD: ('done', '')}
    program.site.videos[BAD] = Video()
    program.run(*flags)
    assert program.reasons[BAD] == ('done', '')


def test_a_cheap_no_is_not_believed_where_the_full_extraction_trips(program: Program) -> None:
    two_rows(program, clients={'VISIONOS': 'kids', 'WEB': 'bare', 'TVHTML5': 'kids'}, shape='no context')
    program.run('--retries', '0', status=1)
    assert program.reasons == {BAD: ('failed', 'other'), GOOD: ('done', '')}


def test_yt_dlps_advice_is_no_refusal(program: Program) -> None:
    program.offer(*(f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(12)))
    said = program.run('--client', 'mweb')
    assert 'refuses' not in said.stdout
    assert len(program.metadata) == 12


def test_the_cheap_request_alone_is_not_believed(program: Program) -> None:
    faults = ['unavailable', 'kids', 'age']
    ids = faulty_rows(program, faults, minimal=True)
    program.run()
    assert {status for status, _ in program.reasons.values()} == {'done'}
    assert {program.site.asked['page', ytid] for ytid in ids.values()} == {1}
    assert program.site.counts['page'] == len(ids), 'nobody else needs it'


@pytest.mark.parametrize('fault', ['bot', 'player 403'])
def test_a_refusal_of_the_cheap_request_has_a_probe_ask_in_full(program: Program, fault: str) -> None:
    two_rows(program, fault=fault, minimal=True)
    program.run()
    assert {status for status, _ in program.reasons.values()} == {'done'}


def test_the_cheap_request_is_given_up_when_it_keeps_failing(program: Program) -> None:
    rows = [f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(12)]
    program.offer(*rows)
    program.site.healthy = Video(fault='unavailable', minimal=True)
    said = program.run('--num-processes', '1')
    assert 'going on with the full one' in said.stdout
    assert len(program.metadata) == 12
    assert program.site.asked['page', rows[-1][:11]] == 1
    assert program.site.asked['player', rows[-1][:11]] < program.site.asked['player', rows[0][:11]]


PASSING = ['player 500', 'player drop', 'player garbage', 'media 403', 'media 500', 'media drop', 'media truncate']


def test_a_passing_failure_is_tried_again(program: Program) -> None:
    ids = faulty_rows(program, [*PASSING, 'media stall'], times=1)
    program.run()
    assert {program.site.videos[ytid].times for ytid in ids.values()} == {0}, 'it happened'
    assert {status for status, _ in program.reasons.values()} == {'done'}
    assert max(abs(offset(program.clip(ytid), 30, 10)) for ytid in ids.values()) <= 0.025
    assert not program.leftovers()


def test_a_lasting_failure_is_recorded_and_tried_by_the_next_run(program: Program) -> None:
    faults = {
        'player 500': 'network',
        'player stall': 'network',
        'player garbage': 'network',
        'media 403': 'media 403',
        'media 404': 'media',
        'media truncate': 'wrong length',
        'media stall': 'wrong length',
    }
    ids = faulty_rows(program, [*faults])
    said = program.run('--retries', '1', '--timeout', '1', status=1)
    found = {fault: program.reasons[ytid] for fault, ytid in ids.items()}
    assert found == {fault: ('failed', reason) for fault, reason in faults.items()}
    assert len(program.clips()) == len(program.reasons) - len(faults)
    assert all(f'  {reason} ' in said.stdout for reason in faults.values())
    program.site.videos.clear()
    program.run()
    assert {status for status, _ in program.reasons.values()} == {'done'}


def test_an_upcoming_video_is_asked_for_once_per_run(program: Program) -> None:
    two_rows(program, fault='upcoming')
    program.run(status=1)
    assert program.reasons[BAD] == ('failed', 'live')
    assert program.site.asked['player', BAD] == 1


def test_what_cannot_work_for_any_row_stops_the_run(program: Program) -> None:
    program.offer(*(f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(60)))
    process = program.start('--num-processes', '2', '--ydl-opts', '{"format": "nothing"}')
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert re.search(r'^stopped: 1\d rows failed one after the other .*run the same command again$', err, re.M)
    assert program.site.counts['page'] < 60


def test_gone_rows_are_asked_for_again_on_request(program: Program) -> None:
    two_rows(program, fault='age')
    program.run()
    program.site.videos.clear()
    program.run('--again', 'country')
    assert program.reasons[BAD] == ('gone', 'age')
    program.site.videos[BAD] = Video(fault='country')
    program.run('--again', 'age')
    assert program.reasons[BAD] == ('gone', 'country')
    program.site.videos.clear()
    program.run('--again', 'age')
    assert program.reasons[BAD] == ('gone', 'country')
    program.run('--again', 'country')
    assert program.reasons[BAD][0] == 'done'


@pytest.mark.parametrize(
    ('words', 'verdict', 'reason'),
    [
        ("Private video. Sign in if you've been granted access to this video", 'gone', 'private'),
        ('Sign in to confirm you’re not a bot. Use --cookies', 'throttled', 'bot check'),
        ('SIGN IN TO CONFIRM YOUR AGE', 'gone', 'age'),
        ('All player responses are invalid. Your IP is likely being blocked by Youtube', 'throttled', 'blocked'),
        ("Video unavailable. This content isn't available, try again later.", 'throttled', 'rate limit'),
        ('Unable to download API page: HTTP Error 429: Too Many Requests', 'throttled', 'rate limit'),
        ('The provided YouTube account cookies are no longer valid', 'throttled', 'cookies'),
        ('This live event will begin in 3 days.', 'later', 'live'),
        ('[Errno -3] Temporary failure in name resolution', 'doubt', 'network'),
        ('Requested format is not available', 'failed', 'no format'),
        ('ffmpeg: [https @ 0x1] HTTP error 403 Forbidden\nError opening input', 'doubt', 'media 403'),
        ('ffmpeg: Error opening input: Server returned 429 Too Many Requests', 'throttled', 'rate limit'),
        ('ffmpeg: [tcp @ 0x1] Connection to tcp://127.0.0.1:9 failed: Connection refused', 'doubt', 'media'),
        ('ffmpeg made 0.000 s instead of 10.000 s. ', 'doubt', 'wrong length'),
        ('ffmpeg: av_interleaved_write_frame(): No space left on device', 'stop', 'system'),
        ('ffmpeg: ERROR: ffmpeg exited with code 228', 'stop', 'system'),
        ('ffmpeg: ERROR: ffmpeg exited with code 1', 'failed', 'media'),
        ('ffmpeg: /data/x.m4a: Disk quota exceeded', 'stop', 'system'),
        ('The video ends at 20.000 s, before 30.0 s', 'gone', 'too short'),
        ('This video is not available', 'gone', 'unavailable'),
        (f'Video unavailable. {NETWORK}', 'doubt', 'restricted'),
        ('Your account is restricted from watching this', 'throttled', 'blocked'),
        ('This video is unavailable with Restricted Mode enabled', 'doubt', 'restricted'),
        (
            'This video is no longer available because the uploader has closed their YouTube account.',
            'gone',
            'terminated',
        ),
        (f'This video has been removed for violating our policy. {HATE}', 'gone', 'removed'),
        ('This video is no longer available due to a privacy claim by a third party', 'gone', 'removed'),
        ('An error occurred. Please try again later.', 'doubt', 'other'),
        ('mweb client https formats require a GVS PO Token. They may yield HTTP Error 403', 'failed', 'other'),
        ('the video plays, but has no address for us: Video unavailable', 'later', 'no address'),
        ('ffmpeg: Error opening input file https://r.googlevideo.com/v?expire=1764150501', 'failed', 'media'),
        ('Video unavailable. This account has been closed', 'gone', 'terminated'),
        ('ffmpeg: [https @ 0x55e4034c] HTTP error 500', 'doubt', 'media'),
        ('the YouTube account associated with this video has been terminated.', 'gone', 'terminated'),
        ('download: ERROR: HTTP Error 403: Forbidden', 'doubt', 'media 403'),
        ('download: ERROR: fragment 3 not found, unable to continue', 'doubt', 'media'),
        ('download: more than 537 MB for a video that only comes whole', 'later', 'too large'),
        ('the original sound has no address, only other tracks have one', 'later', 'dubbed'),
        ('the video has no sound', 'gone', 'no sound'),
        ('every format with sound ends at 5.000 s, the video at 120 s', 'later', 'damaged'),
        ("KeyError: 'INNERTUBE_CONTEXT'", 'failed', 'other'),
        ('something never seen before', 'failed', 'other'),
        ('[Errno 11] Resource temporarily unavailable', 'failed', 'other'),
        ('HTTP Error 503: Service Unavailable', 'doubt', 'network'),
    ],
)
def test_words_and_their_meaning(words: str, verdict: str, reason: str) -> None:
    assert judge(words)[:2] == (reason, verdict)

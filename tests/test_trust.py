"""Cookies, certificates and proxies: used where they are given, told to nobody."""

import subprocess
import sys

import pytest

import youtube as stand_in
from conftest import LOGIN, SECRET, Program, give_cookies, kill_session, wait_for

ID = 'aaaaaaaaaaa'
ROW = f'{ID}, 30.000, 40.000, "/m/09x0r"'


@pytest.mark.parametrize(
    'names', [pytest.param(['VISITOR_INFO1_LIVE'], id='a guest'), pytest.param(LOGIN, id='an account')]
)
def test_cookies_are_sent_and_kept_to_ourselves(
    program: Program, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program.offer(ROW, 'bbbbbbbbbbb, 30.000, 40.000, "/m/09x0r"')
    program.site.add('bbbbbbbbbbb', fault='private')
    text = give_cookies(program, names)
    monkeypatch.chdir(program.root)  # where they are within reach of a mistake
    said = program.run()
    assert any(SECRET in cookie for cookie in program.site.cookies)
    assert [status for status, _ in program.reasons.values()].count('done') == 1
    assert (program.root / 'cookies.txt').read_text() == text
    assert not program.leftovers()
    written = [path.read_bytes() for path in program.root.rglob('*') if path.is_file() and path.name != 'cookies.txt']
    assert not any(SECRET.encode() in content for content in [*written, said.stdout.encode(), said.stderr.encode()])


def test_no_worker_writes_cookies_down(program: Program) -> None:
    program.offer(ROW)
    given = give_cookies(program, ['PREF'])
    program.site.healthy.fault = 'page stall'
    process = program.start('--num-processes', '2')
    wait_for(lambda: program.site.counts['page'])
    written = [path for path in program.root.rglob('*') if path.is_file() and SECRET.encode() in path.read_bytes()]
    process.terminate()
    process.communicate()
    assert written == [program.root / 'cookies.txt']
    assert written[0].read_text() == given
    assert not program.leftovers()


@pytest.mark.parametrize('content', ['{"cookies": []}', '.youtube.com TRUE / TRUE 0 PREF x'], ids=['JSON', 'spaces'])
def test_a_file_that_is_no_cookie_file(program: Program, content: str) -> None:
    program.offer(ROW)
    program.root.mkdir()
    (program.root / 'cookies.txt').write_text(content)
    said = program.run(status=2)
    assert 'Netscape' in said.stderr
    assert content not in said.stderr


def test_odd_dates_of_expiry_do_not_spill_the_cookies(program: Program) -> None:
    program.offer(ROW)
    line = give_cookies(program, ['VISITOR_INFO1_LIVE']).splitlines()[-1]
    dates = ['', '0', '-1', 'Session', '4.1e9', '4099999999.5']
    odd = [
        line.replace('2147483647', date).replace('INFO1', f'INFO{n}').replace(SECRET, f'{SECRET}-{n}')
        for n, date in enumerate(dates)
    ]
    text = '\n'.join(['# Netscape HTTP Cookie File', *odd, ''])
    (program.root / 'cookies.txt').write_text(text, encoding='utf-8-sig')
    said = program.run()
    assert SECRET not in said.stdout + said.stderr
    for n, date in enumerate(dates):
        assert any(f'{SECRET}-{n}' in cookie for cookie in program.site.cookies), date


def test_a_cookie_file_without_cookies_is_none(program: Program) -> None:
    program.offer(ROW)
    program.root.mkdir()
    (program.root / 'cookies.txt').write_text('')
    program.run()
    assert not program.site.counts['page'], 'the cheap request was enough'


def test_an_untrusted_certificate_is_refused(program: Program) -> None:
    """With SSL_CERT_FILE taken away, neither the lists nor the clips come through the stand-in."""
    program.offer(ROW)
    del program.env['SSL_CERT_FILE']
    assert 'certificate' in program.run(status=2).stderr.lower()
    csvs = program.root / 'csvs'
    (csvs / 'eval_segments.csv').write_bytes(program.site.files['eval_segments.csv'])
    (csvs / 'class_labels_indices.csv').write_bytes(stand_in.LABELS)
    program.run('--retries', '0', status=1)
    assert program.reasons[ID] == ('failed', 'network')
    assert not program.site.counts['player']


def test_ffmpeg_verifies_certificates_too(program: Program) -> None:
    """yt-dlp is told not to look, so the clip reaches ffmpeg, which trusts certifi's authorities, not our own."""
    program.offer(ROW)
    program.run('--limit', '1')
    program.lose_ledgers()
    program.clip().unlink()
    before = program.site.counts['media']
    del program.env['SSL_CERT_FILE']
    program.run('--ydl-opts', '{"nocheckcertificate": true}', '--retries', '0', status=1)
    assert program.reasons[ID] == ('failed', 'media')
    assert 'certificate' in program.settled[-1][3].lower()
    assert program.site.counts['media'] == before


@pytest.mark.parametrize(
    ('name', 'scheme'), [('http_proxy', 'http://'), ('ALL_PROXY', ''), ('HTTPS_PROXY', 'http://'), ('https_proxy', '')]
)
def test_any_of_the_usual_variables_names_the_proxy(program: Program, name: str, scheme: str) -> None:
    program.offer(ROW)
    proxy = program.env.pop('https_proxy').replace('http://', scheme)
    del program.env['http_proxy'], program.env['no_proxy']
    program.env[name] = proxy
    program.run()
    assert program.site.counts['media'] >= 1


def test_a_certificate_file_that_is_not_there(program: Program) -> None:
    program.env['SSL_CERT_FILE'] = 'nowhere.pem'
    assert 'nowhere.pem' in program.run(status=2).stderr


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_no_cookie_on_a_command_line(program: Program) -> None:
    program.offer(ROW)
    give_cookies(program, LOGIN)
    program.site.healthy.fault = 'media stall'
    process = program.start('--timeout', '60')
    wait_for(lambda: program.site.counts['media'])
    lines = subprocess.run(['ps', '-ww', '-eo', 'args'], capture_output=True, text=True).stdout
    kill_session(process)
    assert 'videoplayback' in lines
    assert SECRET not in lines

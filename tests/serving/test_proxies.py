import pytest
from support.fakes import FakeReader, drawn_digit

from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "digits.example",
    "X-Forwarded-Prefix": "/digits",
}


@pytest.fixture
def app():
    return create_app(Settings(page="off", trusted_proxies=("10.0.0.0/8",)), FakeReader())


def post(app, peer, **headers):
    sent = {"data": drawn_digit(), "content_type": "image/png", "headers": headers}
    return app.test_client().post("/predict", environ_overrides={"REMOTE_ADDR": peer}, **sent)


@pytest.mark.parametrize(
    ("peer", "is_believed"),
    [
        *((peer, True) for peer in ("10.1.2.3", "::ffff:10.1.2.3")),
        *((peer, False) for peer in ("192.0.2.1", "", "no address")),
    ],
)
def test_trusted_proxy_is_believed_and_anybody_else_is_not(app, peer, is_believed):
    answer = post(app, peer, **FORWARDED)
    assert answer.status_code == 200
    assert ("Strict-Transport-Security" in answer.headers) is is_believed
    answer = post(app, peer, Origin="https://digits.example", **FORWARDED)
    assert answer.status_code == (200 if is_believed else 403)
    assert post(app, peer, Origin="https://evil.example", **FORWARDED).status_code == 403


def test_host_of_a_proxy_that_does_not_pass_the_browsers_on_is_not_compared(app):
    own = {"Host": "web:5000", "Origin": "https://digits.example"}
    assert post(app, "10.1.2.3", **own).status_code == 200
    assert post(app, "192.0.2.1", **own).status_code == 403
    foreign = {**own, "Sec-Fetch-Site": "cross-site"}
    assert post(app, "10.1.2.3", **foreign).status_code == 403

"""Malformed, oversized and slow requests are answered by errors, and the next client is served."""

import socket
import threading
import time
import zlib

import json_numpy
import msgpack
import numpy as np
import pytest
import requests
from openpi_client import msgpack_numpy
from remote_servers import expected, serving, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from gymnast_remote.app import Limits

JSON = {"Content-Type": "application/json"}
HEAD = b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
IMAGE = np.full((8, 8, 3), 51, np.uint8)


def post(server, content, headers=JSON) -> requests.Response:
    return requests.post(f"{server.http}/act", data=content, headers=headers, timeout=20)


def observation(instruction: object = "go", **others) -> str:
    return json_numpy.dumps({"image": IMAGE, "instruction": instruction} | others)


def still_serves(server) -> None:
    np.testing.assert_array_equal(json_numpy.loads(post(server, observation()).text), expected(IMAGE, "go", 2))


def raw(server, data: bytes, seconds: float = 10.0) -> bytes:
    """What the server answers to these bytes before it closes the connection."""
    with socket.create_connection((server.host, server.port), timeout=seconds) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        ("{", 400, "not JSON"),
        (b"\xff\xff", 400, "not JSON"),
        ("[" * 50_000, 400, "not JSON"),
        ("[1]", 400, "mapping"),
        ("{}", 400, "There is no image"),
        ('{"image": [[1]], "instruction": "go"}', 400, "must be an encoded array"),
        ('{"encoded": "{"}', 400, "not JSON"),
        (json_numpy.dumps({"image": IMAGE}), 400, "There is no instruction"),
        (observation(5), 400, "must be text"),
        (observation("x" * 2001), 400, "at most 2000"),
        (observation("\ud800"), 400, "must be text"),
        (json_numpy.dumps({"image": IMAGE[..., :2], "instruction": "go"}), 400, "uint8 RGB"),
        (json_numpy.dumps({"image": IMAGE / 255, "instruction": "go"}), 400, "uint8 RGB"),
        (json_numpy.dumps({"image": IMAGE[:0], "instruction": "go"}), 400, "uint8 RGB"),
        ('{"image": {"__numpy__": "gASVBQAAAAAAAABdlEsBYS4=", "dtype": "|O", "shape": [1]}}', 400, "not accepted"),
        (observation(unnorm_key="other"), 400, "'bridge_orig'"),
        (observation("refuse"), 422, "too dark"),
        (observation("fail"), 500, "The policy failed"),
    ],
)
def test_bad_observations(server, content, status, reason):
    answer = post(server, content)
    assert answer.status_code == status
    assert reason in answer.json()["error"] and "secret" not in answer.text
    still_serves(server)


def test_wrong_places_methods_and_types(server):
    assert requests.get(f"{server.http}/act").status_code == 405
    assert requests.get(f"{server.http}/act").headers["Allow"] == "POST"
    assert requests.post(f"{server.http}/elsewhere").status_code == 404
    assert requests.get(server.http).status_code == 426
    assert post(server, observation(), {"Content-Type": "text/plain"}).status_code == 415
    assert post(server, zlib.compress(b" " * 10**6), JSON | {"Content-Encoding": "deflate"}).status_code == 415
    still_serves(server)


def test_web_pages_are_refused(server):
    assert post(server, observation(), JSON | {"Origin": "http://evil.example"}).status_code == 403
    with pytest.raises(InvalidStatus, match="403"):
        connect(server.ws, additional_headers={"Origin": "http://evil.example"})


def test_what_is_no_http_is_answered_by_400(server):
    assert raw(server, b"\x16\x03\x01\x02\x00nonsense\r\n\r\n").startswith(b"HTTP/1.0 400")
    assert b" 400 " in raw(server, b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n")
    assert b" 400 " in raw(server, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
    still_serves(server)


def test_oversized_bodies_are_refused_before_and_while_they_arrive():
    with serving(Limits(body=10_000)) as server:
        assert post(server, b" " * 2_000_000).status_code == 413
        assert b" 413 " in raw(server, HEAD + b"Content-Length: 9999999999\r\n\r\n")
        assert post(server, iter([b" " * 9_000] * 3)).status_code == 413  # chunked: no length is announced
        still_serves(server)


def test_oversized_messages_close_the_websocket_only():
    with serving(Limits(body=10_000)) as server:
        with connect(server.ws) as client:
            client.recv()
            client.send(b" " * 20_000)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=10)
            assert closed.value.rcvd.code == 1009
        still_serves(server)


def test_slow_bodies_are_given_up():
    with serving(Limits(read_seconds=0.3)) as server:
        began = time.monotonic()
        answer = raw(server, HEAD + b'Content-Length: 50\r\n\r\n{"im')
        assert b" 408 " in answer and b"too long" in answer
        assert time.monotonic() - began < 8
        still_serves(server)


def test_slow_heads_are_given_up():
    with serving(Limits(idle_seconds=0.4)) as server:
        assert raw(server, b"POST /act HTTP/1.1\r\nHost: x\r\nContent-") == b""
        assert raw(server, b"") == b""
        still_serves(server)


def test_half_a_message_does_not_hold_a_websocket_for_ever():
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    with serving(Limits(heartbeat=0.4, connections=1)) as server:
        three_of_4096_bytes = b"\x82\xfe\x10\x00\x00\x00\x00\x00abc"
        assert b"101 Switching" in raw(server, upgrade + three_of_4096_bytes)
        with connect(server.ws) as client:
            client.recv()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("text", "Send msgpack"),
        (b"\xc1", "not msgpack"),
        (b"\x91" * 5000, "not msgpack"),
        (msgpack.packb([1]), "mapping"),
        (msgpack.packb({"image": b"abc", "prompt": "go"}), "must be an encoded array"),
        (msgpack_numpy.packb({"image": IMAGE.astype(np.float64), "prompt": "go"}), "uint8 RGB"),
        (msgpack_numpy.packb({"image": IMAGE, "prompt": "refuse"}), "too dark"),
        (msgpack_numpy.packb({"image": IMAGE, "prompt": "fail"}), "The policy failed"),
    ],
)
def test_bad_messages_are_answered_by_text_and_the_websocket_goes_on(server, message, reason):
    with connect(server.ws) as client:
        client.recv()
        client.send(message)
        answer = client.recv(timeout=10)
        assert isinstance(answer, str) and reason in answer and "secret" not in answer
        client.send(msgpack_numpy.packb({"image": IMAGE, "prompt": "go"}))
        np.testing.assert_array_equal(
            msgpack_numpy.unpackb(client.recv(timeout=10))["actions"], expected(IMAGE, "go", 2)
        )


def test_states_are_checked_where_they_are_read():
    with serving(proprio=2) as server:
        assert "There is no state" in post(server, observation()).json()["error"]
        for state in ("up", [1, "x"], [[1.0]], [[1], [1, 2]], [10**400], np.array([np.nan])):
            assert "'state' must be a vector" in post(server, observation(state=state)).json()["error"]
        assert post(server, observation(state=[1, 2])).ok
        assert server.policy.seen[0].latest_proprio_BP.tolist() == [[1.0, 2.0]]


def test_a_full_queue_says_when_to_come_back():
    with serving(queue=1) as server:
        busy = [threading.Thread(target=post, args=(server, observation("sleep 0.8"))) for _ in range(2)]
        for thread in busy:
            thread.start()
        wait_until(server.has_unfinished(2))
        refused = post(server, observation())
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
        for thread in busy:
            thread.join()
        still_serves(server)


def test_a_client_that_hangs_up_leaves_the_queue():
    with serving(queue=1) as server:
        slow = threading.Thread(target=post, args=(server, observation("sleep 1.5")))
        slow.start()
        wait_until(server.has_unfinished(1))
        with pytest.raises(requests.Timeout):
            requests.post(f"{server.http}/act", data=observation("gone"), headers=JSON, timeout=0.3)
        wait_until(server.has_unfinished(1))
        still_serves(server)
        slow.join()
        assert [seen.instructions[0] for seen in server.policy.seen] == ["sleep 1.5", "go"]


def test_too_many_websockets_are_refused():
    with serving(Limits(connections=1)) as server:
        with connect(server.ws) as first:
            first.recv()
            with pytest.raises(InvalidStatus, match="503"):
                connect(server.ws)
        wait_until(lambda: not server.gateway._sockets)
        with connect(server.ws) as second:
            assert second.recv()

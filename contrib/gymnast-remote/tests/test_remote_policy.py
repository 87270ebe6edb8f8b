"""The policy `remote` against servers that are made of the protocols' own libraries, and its refusals."""

import copy
import gc
import json
import math
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import json_numpy
import numpy as np
import pytest
import torch
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.testing import check_policy
from gymnast_core.types import Needs, Observation
from openpi_client import msgpack_numpy
from remote_servers import expected, serving
from websockets.sync.server import serve

from gymnast_remote.app import Limits
from gymnast_remote.clients import RemoteError
from gymnast_remote.policy import RemotePolicy


@contextmanager
def openvla_server(answer):
    """Like OpenVLA's deploy.py: `answer(payload)` gives status and text; also counts requests in flight."""
    seen, lock, flying = [], threading.Lock(), [0, 0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            with lock:
                flying[0] += 1
                flying[1] = max(flying)
            payload = json_numpy.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers.get("Authorization"), payload))
            status, text = answer(payload)
            with lock:
                flying[0] -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):
            """Clients that hang up are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen, flying
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def openpi_server(infer, metadata=None):
    """Like openpi's WebsocketPolicyServer, of `websockets` and openpi_client's msgpack_numpy."""
    seen, connections = [], []

    def handle(connection):
        connections.append(connection)
        connection.send(msgpack_numpy.packb(metadata or {}))
        for message in connection:
            seen.append(msgpack_numpy.unpackb(message))
            try:
                connection.send(msgpack_numpy.packb({"actions": infer(seen[-1])}))
            except ValueError as error:
                connection.send(f"Traceback (most recent call last):\n  File ...\nValueError: {error}")
                connection.close(1011)

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "ws://{}:{}".format(*server.socket.getsockname()), seen, connections
        server.shutdown()


def observation(count: int = 3, views: int = 1) -> Observation:
    images = torch.randint(
        0, 256, (count, 1, views, 6, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    names = tuple(f"camera-{i}" for i in range(views))
    return Observation(images, tuple("push" + "!" * i for i in range(count)), names)


def wanted(seen: Observation, chunk: int) -> np.ndarray:
    rows = zip(seen.latest_BVHWC.numpy(), seen.instructions, strict=True)
    return np.stack([expected(images[0], text, chunk) for images, text in rows])


@contextmanager
def remote(url, **args):
    policy = RemotePolicy(
        typed(RemotePolicy.Config, {"url": url, "action_dim": 3, "retries": 0, "timeout": 10.0} | args, "args")
    )
    try:
        yield policy
    finally:
        policy.close()


def assert_raises(error, match, policy) -> None:
    with pytest.raises(error, match=match):
        policy.act(observation(1), temperature=0.0)


ANSWERS = {
    "an action": (1, lambda a: json_numpy.dumps(a[0])),
    "a chunk": (2, lambda a: json_numpy.dumps(a)),
    "a list of arrays": (2, lambda a: json_numpy.dumps(list(a))),
    "plain lists": (2, lambda a: json.dumps(a.tolist())),
    "encoded twice": (2, lambda a: json.dumps(json_numpy.dumps(a))),
    "in a mapping": (2, lambda a: json_numpy.dumps({"action": a})),
}


@pytest.mark.parametrize("form", ANSWERS)
def test_a_server_like_openvlas(form, monkeypatch):
    chunk, encode = ANSWERS[form]
    monkeypatch.setenv("GYMNAST_REMOTE_TOKEN", "a token")
    seen = observation()

    def answer(payload):
        return 200, encode(expected(payload["image"], payload["instruction"], chunk))

    with openvla_server(answer) as (url, requests, _), remote(url, chunk_length=chunk, unnorm_key="bridge") as policy:
        decided = policy.act(seen, temperature=0.0)
    np.testing.assert_array_equal(decided.actions_BLA, wanted(seen, chunk))
    assert decided.actions_BLA.dtype == torch.float32
    assert decided.log_prob_BLD.shape == (3, chunk, 1) and decided.log_prob_BLD.isnan().all()
    path, authorization, payload = requests[0]
    assert (path, authorization) == ("/act", "Bearer a token")
    assert sorted(payload) == ["image", "instruction", "unnorm_key"] and payload["unnorm_key"] == "bridge"


def test_it_keeps_the_contract_of_policies_for_evaluation_only(server):
    with remote(f"http://127.0.0.1:{server.port}", chunk_length=2) as policy:
        assert "evaluate refuses" in check_policy(policy, image_size=16)


def test_a_server_like_openpis():
    seen = observation()

    def infer(payload):
        return expected(payload["observation/image"], payload["prompt"], 5)

    args = dict(protocol="openpi", chunk_length=2, state_key="observation/state", state_width=8, blank_state=True,
                blank_image_keys=["observation/wrist_image"])  # fmt: skip
    with openpi_server(infer) as (url, payloads, connections), remote(url, **args) as policy:
        for _ in range(2):
            decided = policy.act(seen, temperature=0.0)
            np.testing.assert_array_equal(decided.actions_BLA, wanted(seen, 5)[:, :2])
        assert len(payloads) == 6 and len(connections) <= 4
    assert sorted(payloads[0]) == ["observation/image", "observation/state", "observation/wrist_image", "prompt"]
    assert payloads[0]["observation/state"].shape == (8,) and not payloads[0]["observation/wrist_image"].any()


@pytest.mark.parametrize("protocol", ["openvla", "openpi"])
def test_our_own_server(protocol):
    seen = observation(6)
    with serving() as server:
        url = server.http if protocol == "openvla" else server.ws
        with remote(url, protocol=protocol, chunk_length=2) as policy:
            np.testing.assert_array_equal(policy.act(seen, temperature=0.0).actions_BLA, wanted(seen, 2))
            again = copy.deepcopy(policy)
            np.testing.assert_array_equal(again.act(seen, temperature=0.0).actions_BLA, wanted(seen, 2))
            again.close()


def test_views_states_and_nested_keys_in_the_form_of_aloha():
    seen = replace(observation(1, views=2), instructions=("go",), proprio_BTP=torch.tensor([[[0.5, 0.25]]]))
    args = dict(protocol="openpi", image_keys=["images.cam_high", "images.cam_left"], channels_first=True,
                state_key="state", state_width=2, instruction_key="task")  # fmt: skip
    with openpi_server(lambda _: np.zeros((1, 3))) as (url, payloads, _), remote(url, **args) as policy:
        policy.act(seen, temperature=0.0)
    (payload,) = payloads
    assert sorted(payload["images"]) == ["cam_high", "cam_left"] and payload["task"] == "go"
    np.testing.assert_array_equal(payload["images"]["cam_left"], seen.latest_BVHWC[0, 1].permute(2, 0, 1))
    np.testing.assert_array_equal(payload["state"], np.array([0.5, 0.25], np.float32))


def test_what_it_needs_is_what_is_sent():
    def needs(**args):
        return RemotePolicy.needs(RemotePolicy.Config(**args))

    assert needs() == Needs(1)
    assert needs(image_keys=["a", "b"], blank_image_keys=["c"]) == Needs(2)
    assert needs(image_keys=["a", "b"], cameras=["front", "wrist"]) == Needs(("front", "wrist"))
    assert needs(state_key="state", state_width=8) == Needs(1, proprio=8)
    assert needs(state_key="state", state_width=8, blank_state=True) == Needs(1)


def test_several_cameras_and_a_state_through_our_own_server():
    """The camera that the world calls "wrist" goes under its key, whatever its place in the world."""
    for protocol in ("openvla", "openpi"):
        with serving(cameras=("front", "wrist"), proprio=2) as server:
            keys = ["image", "wrist"] if protocol == "openvla" else ["observation/image", "observation/wrist_image"]
            args = dict(image_keys=keys, cameras=["front", "wrist"], state_width=2, protocol=protocol, chunk_length=2,
                        state_key="state" if protocol == "openvla" else "observation/state")  # fmt: skip
            url = server.http if protocol == "openvla" else server.ws
            with remote(url, **args) as policy:
                check_policy(policy, image_size=16)
                server.policy.seen.clear()
                seen = replace(observation(1, views=2), proprio_BTP=torch.tensor([[[0.5, 0.25]]]))
                policy.act(seen, temperature=0.0)
            (arrived,) = server.policy.seen
            assert arrived.cameras == ("front", "wrist")
            assert torch.equal(arrived.images_BTVHWC, seen.images_BTVHWC)
            assert torch.equal(arrived.proprio_BTP, seen.proprio_BTP)


def test_conventions_of_the_robot_are_numbers():
    with openpi_server(lambda _: np.array([[1.0, 2.0, -1.0], [1.0, 2.0, 1.0]])) as (url, *_):
        args = dict(protocol="openpi", chunk_length=2, action_scale=[1, 0.5, -0.5], action_offset=[0, 0, 0.5])
        with remote(url, **args) as policy:
            actions = policy.act(observation(1), temperature=0.0).actions_BLA
    assert actions.tolist() == [[[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]]


def test_as_many_observations_are_in_flight_as_told():
    def answer(payload):
        time.sleep(0.1)
        return 200, json_numpy.dumps(np.zeros(3))

    with openvla_server(answer) as (url, requests, flying), remote(url, concurrency=2) as policy:
        policy.act(observation(6), temperature=0.0)
        assert (len(requests), flying[1]) == (6, 2)


def test_a_busy_server_is_asked_again_and_a_failing_one_is_not():
    answers = iter([(503, "busy"), (200, json_numpy.dumps(np.ones(3))), (500, "broken"), (200, "never")])
    with openvla_server(lambda _: next(answers)) as (url, requests, _), remote(url, retries=2) as policy:
        assert policy.act(observation(1), temperature=0.0).actions_BLA.tolist() == [[[1.0] * 3]]
        with pytest.raises(RemoteError, match=r"refused the observation \(500\): broken"):
            policy.act(observation(1), temperature=0.0)
        assert len(requests) == 3


@pytest.mark.parametrize("protocol", ["openvla", "openpi"])
def test_a_server_that_comes_up_late_or_restarts_is_found(protocol):
    seen = observation(2)
    with serving() as first:
        port, url = first.port, first.http if protocol == "openvla" else first.ws
    with remote(url, protocol=protocol, chunk_length=2, retries=6) as policy:
        threads = []

        def start_late(seconds):
            stop = threading.Event()

            def late():
                time.sleep(seconds)
                with serving_at(port):
                    stop.wait(30)

            threads.append((thread := threading.Thread(target=late), stop))
            thread.start()

        for _ in range(2):
            start_late(0.4)
            np.testing.assert_array_equal(policy.act(seen, temperature=0.0).actions_BLA, wanted(seen, 2))
            thread, stop = threads.pop()
            stop.set()
            thread.join()


@contextmanager
def serving_at(port):
    import asyncio

    from aiohttp import web
    from remote_servers import Scripted

    from gymnast_remote.app import Gateway
    from gymnast_remote.service import PolicyService, ServiceConfig

    loop = asyncio.new_event_loop()
    runner = Gateway(PolicyService(Scripted(Scripted.Config()), ServiceConfig("s")), Limits()).runner()
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ('"error"', RemoteError, "could not decide: 'error'"),
        ("<html>", RemoteError, "cannot be read"),
        ("null", RemoteError, "instead of actions|shape"),
        ('{"x": 1}', RemoteError, "instead of actions|shape"),
        ("[1, 2, NaN]", RemoteError, "not all finite"),
        ("[[[1, 2, 3]]]", RemoteError, "shape"),
        ('["a", 2, 3]', RemoteError, "instead of actions"),
        ("[[1, 2, 3], [1]]", RemoteError, "instead of actions"),
        ("[1" + "0" * 400 + ", 2, 3]", RemoteError, "instead of actions"),
        ("[1, 2]", DataError, "set action_dim=2"),
        ('{"__numpy__": "gASVBQAAAAAAAABdlEsBYS4=", "dtype": "|O", "shape": [1]}', RemoteError, "not accepted"),
    ],
)
def test_answers_that_are_no_actions(text, error, match):
    with openvla_server(lambda _: (200, text)) as (url, *_), remote(url) as policy, pytest.raises(error, match=match):
        policy.act(observation(2), temperature=0.0)


def test_what_openpis_server_says_when_it_fails():
    def infer(payload):
        if payload["prompt"] == "push":
            raise ValueError("no key 'state'")
        return np.zeros((1, 3))

    with openpi_server(infer) as (url, *_), remote(url, protocol="openpi") as policy:
        with pytest.raises(RemoteError, match="could not decide: ValueError: no key 'state'"):
            policy.act(observation(1), temperature=0.0)
        fine = replace(observation(1), instructions=("other",))
        assert policy.act(fine, temperature=0.0).actions_BLA.shape == (1, 1, 3)


def test_a_chunk_that_is_too_short():
    with openvla_server(lambda _: (200, "[1, 2, 3]")) as (url, *_), remote(url, chunk_length=4) as policy:
        assert_raises(DataError, "set chunk_length=1", policy)


def test_nobody_there_a_silent_server_and_a_wrong_protocol():
    with serving() as server:
        gone = server.http
    with remote(gone, retries=1) as policy:
        assert_raises(RemoteError, r"after 2 attempts.*Is the server running", policy)

    def sleepy(payload):
        time.sleep(0.5)
        return 200, "[1, 2, 3]"

    with openvla_server(sleepy) as (url, *_), remote(url, timeout=0.2) as policy:
        assert_raises(RemoteError, r"within 0\.2 s\. Raise timeout", policy)
    with openvla_server(sleepy) as (url, *_), remote(url.replace("http", "ws"), protocol="openpi") as policy:
        assert_raises(RemoteError, r"refused the observation \(501\)", policy)


@pytest.mark.parametrize("protocol", ["openvla", "openpi"])
def test_a_wrong_token(protocol, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "wrong")
    with serving(token="0123456789abcdef") as server:
        url = server.http if protocol == "openvla" else server.ws
        with remote(url, protocol=protocol, token_env="MY_TOKEN", chunk_length=2) as policy:
            with pytest.raises(RemoteError, match="token_env"):
                policy.act(observation(1), temperature=0.0)
            policy.close()
            monkeypatch.setenv("MY_TOKEN", "0123456789abcdef")
            assert policy.act(observation(1), temperature=0.0).actions_BLA.shape == (1, 2, 3)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret-word@127.0.0.1:1/act", "http://127.0.0.1:1/act?token=secret-word",
        "http://127.0.0.1:1/#secret-word", "http://secret-word@127.0.0.1", "http://127.0.0.1:secret-word",
    ],
)  # fmt: skip
def test_a_login_in_the_address_is_refused_unseen(url):
    with pytest.raises(ConfigError, match="url") as caught:
        RemotePolicy(RemotePolicy.Config(url=url))
    assert "secret-word" not in str(caught.value)


def test_a_token_that_cannot_be_sent_is_refused_unseen(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret-word\nX-Header: mine")
    with pytest.raises(ConfigError, match=r"MY_TOKEN.*several lines") as caught:
        RemotePolicy(RemotePolicy.Config(token_env="MY_TOKEN"))
    assert "secret-word" not in str(caught.value)


TOKEN = "secret-word-0123456789abcdef"
REPEATED = {
    "refused": (401, f"Bearer {TOKEN} is unknown"),
    "failed": (500, f"<p>{TOKEN}</p>"),
    "in two parts": (400, "x" * 290 + TOKEN),
    "could not decide": (200, json.dumps(f"error: {TOKEN}")),
    "no actions": (200, json.dumps({"action": TOKEN})),
}


@pytest.mark.parametrize("case", REPEATED)
def test_a_server_that_repeats_the_token_shows_it_to_nobody(case, monkeypatch):
    monkeypatch.setenv("GYMNAST_REMOTE_TOKEN", TOKEN)
    with openvla_server(lambda _: REPEATED[case]) as (url, seen, _), remote(url) as policy:
        with pytest.raises(RemoteError) as caught:
            policy.act(observation(1), temperature=0.0)
        assert seen[0][1] == f"Bearer {TOKEN}"
    assert "secret-word" not in "".join(traceback.format_exception(caught.value))


def test_an_openpi_server_that_repeats_the_token_shows_it_to_nobody(monkeypatch):
    monkeypatch.setenv("GYMNAST_REMOTE_TOKEN", TOKEN)

    def infer(_):
        raise ValueError(f"no {TOKEN}")

    with openpi_server(infer) as (url, *_), remote(url, protocol="openpi") as policy:
        assert_raises(RemoteError, r"could not decide: ValueError: no \[key\]", policy)


def test_it_is_for_evaluation_only():
    with openvla_server(lambda _: (200, "[1, 2, 3]")) as (url, *_):
        with remote(url) as policy:
            with pytest.raises(ConfigError, match=r"cannot be sampled at temperature 1.*stochastic=true"):
                policy.act(observation(1), temperature=1.0)
            chunk = policy.act(observation(1), temperature=0.0)
            assert all(map(math.isnan, chunk.log_prob_BLD.flatten()))
            with pytest.raises(ConfigError, match=r"cannot be trained by reinforcement learning.*gymnast evaluate"):
                policy.evaluate(observation(1), chunk)
            with pytest.raises(ConfigError, match="cannot be trained"):
                torch.optim.AdamW(policy.parameters())
        with remote(url, stochastic=True) as policy:
            assert policy.act(observation(1), temperature=1.0).actions_BLA.tolist() == [[[1.0, 2.0, 3.0]]]


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"protocol": "openvlo"}, "No protocol 'openvlo'. Did you mean 'openvla'"),
        ({"url": "ws://here:1"}, "For example http://"),
        ({"url": "http://here", "protocol": "openpi"}, "For example ws://"),
        ({"url": "here:8000"}, "For example"),
        ({"url": "http://here:x"}, "For example"),
        ({"url": "http://here:0"}, "For example"),
        ({"url": "http://:80"}, "For example"),
        ({"token_env": "not a name"}, "name of an environment variable"),
        ({"chunk_length": 0}, "at least 1"),
        ({"concurrency": 0}, "at least 1"),
        ({"retries": -1}, "at least 0"),
        ({"timeout": 0.0}, "positive"),
        ({"action_scale": [1.0]}, r"give one a dimension \(7\)"),
        ({"state_width": 8}, "set state_key"),
        ({"state_key": "state"}, "state_width, its readings"),
        ({"blank_state": True}, "needs state_key"),
        ({"cameras": ["front", "wrist"]}, "one image_keys a camera"),
        ({"cameras": ["wrist", "wrist"], "image_keys": ["a", "b"]}, "each camera once"),
    ],
)
def test_bad_arguments_say_what_to_type(args, match):
    with pytest.raises(ConfigError, match=match):
        RemotePolicy(RemotePolicy.Config(**args))


def test_views_and_states_that_do_not_fit():
    with pytest.raises(DataError, match="2 cameras, image_keys names 1"):
        RemotePolicy(RemotePolicy.Config()).act(observation(1, views=2), temperature=0.0)
    with pytest.raises(DataError, match="set blank_state=true"):
        RemotePolicy(RemotePolicy.Config(state_key="state", state_width=2)).act(observation(1), temperature=0.0)
    seen = replace(observation(1), proprio_BTP=torch.zeros(1, 1, 3))
    with pytest.raises(DataError, match=r"measures 3 .* state_width is 2"):
        RemotePolicy(RemotePolicy.Config(state_key="state", state_width=2)).act(seen, temperature=0.0)


def test_an_observation_that_is_too_large_for_the_server():
    with serving(Limits(body=100)) as server:
        with remote(server.ws, protocol="openpi") as policy:
            assert_raises(RemoteError, "too large", policy)
        with remote(server.http) as policy:
            assert_raises(RemoteError, "413", policy)


def test_a_policy_that_is_forgotten_closes_its_connections():
    with serving() as server:
        policy = RemotePolicy(RemotePolicy.Config(server.ws, "openpi", chunk_length=2, action_dim=3))
        policy.act(observation(1), temperature=0.0)
        thread = policy._client._background.thread
        assert thread.is_alive()
        del policy
        gc.collect()
        thread.join(5)
        assert not thread.is_alive()

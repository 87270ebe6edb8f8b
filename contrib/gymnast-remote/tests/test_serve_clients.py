"""The protocols' own clients drive a served policy."""

import subprocess
import sys
import threading

import json_numpy
import numpy as np
import pytest
import requests
from gymnast_core.errors import ConfigError
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from remote_servers import Scripted, expected, serving, wait_until
from websockets.exceptions import ConnectionClosed

from gymnast_remote.app import Limits
from gymnast_remote.service import PolicyService, ServiceConfig

JSON = {"Content-Type": "application/json"}
OPENVLA_CLIENT = """
import sys
import requests
import json_numpy
json_numpy.patch()
import numpy as np

image = np.load(sys.argv[2], allow_pickle=False)
action = requests.post(
    sys.argv[1] + "/act",
    json={"image": image, "instruction": "do something", "unnorm_key": "bridge_orig"}
).json()
np.save(sys.argv[3], action)
"""
"""As the docstring of OpenVLA's server tells its clients to do."""


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_client_as_openvla_describes_it(tmp_path, image, chunk):
    np.save(tmp_path / "image.npy", image)
    paths = [str(tmp_path / name) for name in ("image.npy", "action.npy")]
    with serving(chunk=chunk) as server:
        done = subprocess.run([sys.executable, "-c", OPENVLA_CLIENT, server.http, *paths], capture_output=True)
    assert done.returncode == 0, done.stderr
    action, wanted = np.load(paths[1]), expected(image, "do something", chunk)
    np.testing.assert_array_equal(action, wanted[0] if chunk == 1 else wanted)


def test_a_client_that_encodes_twice_is_answered_likewise(server, image):
    encoded = json_numpy.dumps({"image": image, "instruction": "go"})
    answer = requests.post(f"{server.http}/act", json={"encoded": encoded}).json()
    assert isinstance(answer, str)
    np.testing.assert_array_equal(json_numpy.loads(answer), expected(image, "go", 2))


def test_a_client_of_openvla_oft(image):
    observation = {"full_image": image, "wrist_image": image[::-1], "state": np.ones(8), "instruction": "go"}
    with serving(cameras=("front", "wrist"), proprio=8) as server:
        answer = requests.post(f"{server.http}/act", data=json_numpy.dumps(observation), headers=JSON)
        np.testing.assert_array_equal(json_numpy.loads(answer.text), expected(image, "go", 2))
        (seen,) = server.policy.seen
    assert seen.images_BTVHWC.shape == (1, 1, 2, 24, 32, 3) and seen.cameras == ("front", "wrist")
    np.testing.assert_array_equal(seen.latest_BVHWC[0, 1], image[::-1])
    np.testing.assert_array_equal(seen.latest_proprio_BP, np.ones((1, 8)))


def test_a_client_of_openpis_aloha_policies(image):
    """Images channels first, in a mapping of their own."""
    images = {"cam_high": image.transpose(2, 0, 1), "cam_wrist": image[::-1].transpose(2, 0, 1)}
    keys = ("images.cam_high", "images.cam_wrist")
    with serving(cameras=("front", "wrist"), proprio=14, image_keys=keys) as server:
        client = WebsocketClientPolicy(server.host, server.port)
        assert client.get_server_metadata()["image_keys"] == list(keys)
        client.infer({"images": images, "state": np.arange(14.0), "prompt": "go"})
        with pytest.raises(RuntimeError, match=r"no image of the camera 'wrist': send it as 'images\.cam_wrist'"):
            client.infer({"images": {"cam_high": image}, "state": np.arange(14.0), "prompt": "go"})
        with pytest.raises(RuntimeError, match="'state' has 7 numbers; the policy reads 14"):
            client.infer({"images": images, "state": np.arange(7.0), "prompt": "go"})
        client._ws.close()
        (seen,) = server.policy.seen
    np.testing.assert_array_equal(seen.latest_BVHWC[0, 0], image)
    np.testing.assert_array_equal(seen.latest_BVHWC[0, 1], image[::-1])
    np.testing.assert_array_equal(seen.latest_proprio_BP, np.arange(14.0)[None])


@pytest.mark.parametrize(
    ("args", "config", "match"),
    [
        ({"cameras": ("a", "b")}, {"image_keys": ("x",)}, "is shown 2 cameras, and --image-key names 1"),
        ({"cameras": 2}, {}, "does not name them"),
        ({"history": 3}, {}, "needs 3 frames at each decision"),
        ({}, {"state_key": "state"}, "leave --state-key out"),
        ({}, {"on_extra": "drop"}, "Known: refuse, warn"),
    ],
)
def test_what_cannot_be_served_is_said_at_the_start(args, config, match):
    with pytest.raises(ConfigError, match=match):
        PolicyService(Scripted(Scripted.Config(**args)), ServiceConfig("scripted", **config))


def test_openpis_own_client(image):
    with serving(on_extra="warn") as server:
        own_client_is_served(server, image)


def own_client_is_served(server, image):
    client = WebsocketClientPolicy(server.host, server.port)
    metadata = client.get_server_metadata()
    assert (metadata["chunk_length"], metadata["action_dim"]) == (2, 3)
    for instruction in ("go", "go on"):
        # State and wrist are what openpi's LIBERO example sends besides.
        observation = {"observation/image": image, "observation/wrist_image": image, "prompt": instruction}
        answer = client.infer(observation | {"observation/state": np.zeros(8)})
        np.testing.assert_array_equal(answer["actions"], expected(image, instruction, 2))
        assert answer["server_timing"]["infer_ms"] > 0
        assert answer["ignored"] == ["observation/state", "observation/wrist_image"]
    with pytest.raises(RuntimeError, match="There is no instruction: send it as 'instruction' or 'prompt'"):
        client.infer({"observation/image": image})
    with pytest.raises(RuntimeError, match="The policy failed"):
        client.infer({"observation/image": image, "prompt": "fail"})
    np.testing.assert_array_equal(
        client.infer({"observation/image": image, "prompt": "still here"})["actions"], expected(image, "still here", 2)
    )
    client._ws.close()


def test_what_the_policy_does_not_take_is_refused_or_named(image, caplog):
    extra = {"image": image, "wrist_image": image, "state": [0.0] * 8, "nothing": None, "instruction": "go"}
    with serving() as server:
        answer = requests.post(f"{server.http}/act", data=json_numpy.dumps(extra), headers=JSON)
        assert answer.status_code == 400
        for word in ("'state', 'wrist_image'", "takes 'image', 'instruction' alone", "--on-extra warn"):
            assert word in answer.json()["error"]
        assert not server.policy.seen
    with serving(on_extra="warn") as server:
        for _ in range(2):
            answer = requests.post(f"{server.http}/act", data=json_numpy.dumps(extra), headers=JSON)
            np.testing.assert_array_equal(json_numpy.loads(answer.text), expected(image, "go", 2))
            assert answer.headers["X-Gymnast-Ignored"] == '["state", "wrist_image"]'
        assert caplog.text.count("A client sends what is not read, 'state', 'wrist_image'") == 1
        plain = {"image": image, "instruction": "go", "unnorm_key": "bridge_orig"}
        answer = requests.post(f"{server.http}/act", data=json_numpy.dumps(plain), headers=JSON)
        assert answer.ok and "X-Gymnast-Ignored" not in answer.headers


@pytest.mark.parametrize("on_extra", ["refuse", "warn"])
@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("wrist_image", r"no image of the camera 'wrist': send it as 'wrist'"),
        ("state", r"no state, of which the policy reads 8 numbers: send it as 'state'"),
        ("image", r"no image: send it as 'image'"),
    ],
)
def test_what_the_policy_needs_is_never_made_up(image, on_extra, left_out, said):
    whole = {"image": image, "wrist_image": image, "state": np.zeros(8), "instruction": "go"}
    with serving(cameras=("front", "wrist"), proprio=8, on_extra=on_extra) as server:
        part = {key: value for key, value in whole.items() if key != left_out}
        answer = requests.post(f"{server.http}/act", data=json_numpy.dumps(part), headers=JSON)
        assert answer.status_code == 400 and said in answer.json()["error"]
        assert requests.post(f"{server.http}/act", data=json_numpy.dumps(whole), headers=JSON).ok


def test_parts_of_a_nested_message_that_are_not_read_are_named(image):
    keys = ("images.cam_high", "images.cam_wrist")
    with serving(cameras=("front", "wrist"), image_keys=keys, on_extra="warn") as server:
        client = WebsocketClientPolicy(server.host, server.port)
        images = {"cam_high": image, "cam_wrist": image, "cam_low": image}
        answer = client.infer({"images": images, "depth": {"a": {"b": 1}}, "prompt": "go", "instruction": "go"})
        assert answer["ignored"] == ["depth", "images.cam_low", "prompt"]
        client._ws.close()


def test_pings_are_answered_while_the_policy_decides(image):
    with serving(Limits(heartbeat=0.3)) as server:
        client = WebsocketClientPolicy(server.host, server.port)
        deciding = threading.Thread(target=client.infer, args=({"observation/image": image, "prompt": "sleep 1.2"},))
        deciding.start()
        wait_until(server.has_unfinished(1))
        assert client._ws.ping().wait(10)
        assert server.has_unfinished(1)()
        deciding.join()
        assert client.infer({"observation/image": image, "prompt": "x"})["actions"].shape == (2, 3)
        client._ws.close()


def test_one_token_for_both_protocols(image):
    token = "0123456789abcdef"
    body = {"data": json_numpy.dumps({"image": image, "instruction": "go"})}
    with serving(token=token) as server:
        credentials = [(f"Bearer {token}", 200), (f"Bearer {token[:-1]}", 401), ("", 401), ("Bearer ü", 401)]
        for scheme, status in credentials:
            for encoding in ("utf-8", "latin-1"):
                headers = JSON | {"Authorization": scheme.encode(encoding)}
                assert requests.post(f"{server.http}/act", **body, headers=headers).status_code == status
        client = WebsocketClientPolicy(server.host, server.port, api_key=token)
        assert client.infer({"image": image, "prompt": "x"})["actions"].shape == (2, 3)
        client._ws.close()
        with pytest.raises(Exception, match="401"):
            WebsocketClientPolicy(server.host, server.port, api_key="wrong")
        assert requests.get(f"{server.http}/healthz").json() == {"status": "ok"}


def test_decisions_are_made_one_at_a_time_whatever_the_protocol(image):
    with serving() as server:
        body, headers = (
            json_numpy.dumps({"image": image, "instruction": "sleep 0.05"}),
            {"Content-Type": "application/json"},
        )
        client = WebsocketClientPolicy(server.host, server.port)
        work = [lambda: requests.post(f"{server.http}/act", data=body, headers=headers)] * 4
        work += [lambda: client.infer({"image": image, "prompt": "sleep 0.05"})]
        threads = [threading.Thread(target=target) for target in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(server.policy.seen), server.policy.most_deciding) == (5, 1)
        client._ws.close()


@pytest.mark.parametrize("protocol", ["openvla", "openpi"])
def test_a_server_that_is_stopped_answers_what_it_decides(protocol, image):
    answers = []

    def ask(server, client):
        observation = {"image": image, "instruction": "sleep 0.5"}
        if client is None:
            answer = requests.post(f"{server.http}/act", data=json_numpy.dumps(observation), headers=JSON)
            answers.append(json_numpy.loads(answer.text))
        else:
            answers.append(client.infer(observation)["actions"])
            with pytest.raises(ConnectionClosed) as closed:
                client.infer(observation)
            answers.append(closed.value.rcvd.code)

    with serving() as server:
        client = WebsocketClientPolicy(server.host, server.port) if protocol == "openpi" else None
        idle = WebsocketClientPolicy(server.host, server.port)
        asking = threading.Thread(target=ask, args=(server, client))
        asking.start()
        wait_until(server.has_unfinished(1))
    asking.join(10)
    np.testing.assert_array_equal(answers[0], expected(image, "sleep 0.5", 2))
    assert answers[1:] == ([1001] if client else [])
    with pytest.raises(ConnectionClosed):
        idle.infer({})

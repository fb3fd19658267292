"""Are the published images within reach?"""

import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

PROBE_SECONDS = 4
# docker.io is a name in references only; its registry lives elsewhere.
HOSTS = {"docker.io": "registry-1.docker.io"}


def silent_hosts(references: Iterable[str]) -> list[str]:
    """The registries among those that `references` name which do not answer as a registry, sorted."""
    hosts = sorted({reference.split("/", 1)[0] for reference in references})
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(_answers, hosts))
    return [host for host, answered in zip(hosts, answers, strict=True) if not answered]


def _answers(host: str) -> bool:
    url = f"https://{HOSTS.get(host, host)}/v2/"
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as refusal:
        # "Log in first" is what a registry says to a stranger, and what no other server would.
        return refusal.code == 401 and "www-authenticate" in refusal.headers
    except OSError:
        return False

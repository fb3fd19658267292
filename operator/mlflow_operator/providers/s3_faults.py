"""What stores and the network to them say, in our own words and with the way out. `place` is for people."""

from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.faults import Fault, NotReady, UserMistake

_ENDPOINT = "spec.artifacts.s3.endpoint"


_TIME_IS_UP = ("ReadTimeout", "ConnectTimeout", "TimeoutError")
"""In the names of errors: botocore's, aiohttp's and Python's own."""


def silent(place: str) -> NotReady:
    """No answer in time, whosever time it was: another sentence each time would be news each time."""
    return NotReady(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The artifact store at {place} does not answer in time. Check that it runs, that it is not overloaded, and "
        "that the network lets the operator's and the server's pods through.",
    )


def unreachable(error: BaseException, place: str) -> Fault:
    """No answer at all. The words of OpenSSL and of the resolver are the same in boto3's errors and in aiohttp's."""
    if any(words in type(error).__name__ for words in _TIME_IS_UP):
        return silent(place)
    said = f"{type(error).__name__} {error}"
    if "CERTIFICATE_VERIFY_FAILED" in said and ("ostname mismatch" in said or "IP address mismatch" in said):
        return UserMistake(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} shows a certificate that is made out for another host. Name the store in "
            f"{_ENDPOINT} by the host in its certificate.",
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return UserMistake(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} shows a certificate that is not trusted. Put its authority into the Secret "
            "that spec.artifacts.s3.tls.caSecretRef names.",
        )
    if "[SSL" in said or "SSLError" in said:
        return UserMistake(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} speaks no TLS. Write http:// instead of https:// in {_ENDPOINT}, or turn "
            "TLS on there.",
        )
    if any(words in said for words in ("DNSError", "resolve", "Name or service not known", "No address")):
        return NotReady(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} has a name that does not resolve in this cluster. Check {_ENDPOINT}.",
        )
    return NotReady(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The artifact store at {place} can't be reached. Check that it runs, that the network lets the operator's and "
        f"the server's pods through, and that {_ENDPOINT} is right.",
    )


def common(code: str, status: int, place: str) -> Fault | None:
    """What a store says to whoever asks, whatever it is asked; None where it depends."""
    if code == "RequestTimeTooSkewed":
        return UserMistake(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The clocks of the store at {place} and of the operator's node differ by more than 15 minutes, so that it "
            "takes no signature. Set both by NTP.",
        )
    if status == 400 and code in {"", "400"}:
        return UserMistake(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"What answers at {place} refuses plain HTTP. Write https:// instead of http:// in {_ENDPOINT}, or correct "
            "its port.",
        )
    if status >= 500:
        return NotReady(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} answers HTTP {status}. It is asked again shortly.",
        )
    return None

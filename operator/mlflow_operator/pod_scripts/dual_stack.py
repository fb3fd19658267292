"""Run `mlflow server`, and accept IPv6 connections in addition to IPv4 connections.

MLflow passes one host to uvicorn, and no host is right everywhere: 0.0.0.0 accepts IPv4 only, `::` cannot be used on a
node without IPv6, and a single worker of uvicorn would then accept IPv6 only. The host therefore remains 0.0.0.0, and
uvicorn gets a second socket if the node has IPv6. IPv4 clients keep their IPv4 addresses, which FORWARDED_ALLOW_IPS and
logs contain.

MLflow starts uvicorn as another process. This program then runs in that process, too, with `uvicorn` as its first
argument.
"""

import socket
import sys

UVICORN_MODULE = "uvicorn.main"
UVICORN, GUNICORN = ([sys.executable, "-m", name] for name in ("uvicorn", "gunicorn"))
ALL_IPV4 = "0.0.0.0"  # noqa: S104 - the network of the pod


def ipv6_socket(port, *, ipv6_only=True):
    """Return a socket that is bound to `port` of all IPv6 addresses, or None if that is not possible.

    A kernel without IPv6 is the usual reason. No reason stops the server, because IPv4 clients can use it.
    """
    try:
        bound = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        bound.bind(("::", port))
    except OSError as error:
        print(
            f"mlflow-operator: the server accepts no IPv6 connections: {error}", file=sys.stderr, flush=True
        )
        bound.close()
        return None
    bound.set_inheritable(True)
    return bound


def add_ipv6():
    """Let uvicorn, which must be imported, listen on IPv6, too, if it listens on all IPv4 addresses."""
    module = sys.modules[UVICORN_MODULE]  # the package's attribute `main` is a function
    run, supervise = module.Server.run, module.Multiprocess

    def add(config, sockets):
        extra = ipv6_socket(config.port) if config.host == ALL_IPV4 else None
        return [*sockets, extra] if extra else sockets

    def run_server(server, sockets=None):
        # with several workers, the supervisor has already created the sockets
        return run(server, sockets=sockets or add(server.config, [server.config.bind_socket()]))

    def supervise_workers(config, *arguments, sockets, **options):
        return supervise(config, *arguments, sockets=add(config, sockets), **options)

    run_server.__name__ = run.__name__  # uvicorn's workers find the method by this name
    module.Server.run, module.Multiprocess = run_server, supervise_workers


def with_ipv6(command, program):
    """Return the command of MLflow's server, changed so that the server accepts IPv6 connections.

    `program` is the command that runs this file. A command that this function does not know is returned unchanged.
    """
    if command[:3] == UVICORN:
        return [*program, "uvicorn", *command[3:]]
    if command[:3] == GUNICORN:
        # it can bind IPv4 and IPv6 to the same port only with one socket for both
        probe = ipv6_socket(0, ipv6_only=False)
        if probe:
            probe.close()
            return [part.replace(f"{ALL_IPV4}:", "[::]:") for part in command]
    return command


def program():
    """Return the command that runs this file in this interpreter: its options, and the module or the source."""
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]


def main():
    """Do what `mlflow` does with the same arguments; or, after MLflow has started this program, what uvicorn does."""
    if sys.argv[1:2] == ["uvicorn"]:
        from uvicorn.main import main as uvicorn

        add_ipv6()
        sys.exit(uvicorn(sys.argv[2:], prog_name="uvicorn"))
    from mlflow import server
    from mlflow.cli import cli

    if hasattr(server, "_exec_cmd") and hasattr(sys, "orig_argv"):
        start = server._exec_cmd
        server._exec_cmd = lambda command, **options: start(with_ipv6(command, program()), **options)
    cli(prog_name="mlflow")


if __name__ == "__main__":
    main()

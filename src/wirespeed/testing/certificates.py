"""A certificate authority for a test run, so that TLS is verified and not switched off."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files.

    Attributes:
        cafile: the authority, for the client to trust.
        certfile: the server's certificate chain, for 127.0.0.1 and localhost.
        keyfile: the server's private key.
    """

    cafile: str
    certfile: str
    keyfile: str


def make_certificates(directory: str | os.PathLike[str]) -> Certificates:
    """Make an authority and a server certificate signed by it; needs trustme (extra `test`).

    Args:
        directory: an existing directory, for the run alone: the private key is written there.

    Returns:
        The paths of the files written.

    Raises:
        ModuleNotFoundError: trustme is not installed.
        OSError: the directory cannot be written.
    """
    import trustme

    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    folder = Path(directory)
    made = Certificates(*(str(folder / name) for name in ("ca.pem", "server.pem", "server.key")))
    authority.cert_pem.write_to_path(made.cafile)
    for number, pem in enumerate(server.cert_chain_pems):
        pem.write_to_path(made.certfile, append=number > 0)
    server.private_key_pem.write_to_path(made.keyfile)
    return made

"""Migrate the tables of basic-auth, and create the administrator or reset the password.

The password is in the environment of this process only: servers read its hash in the database.
"""

import os
import sys
import traceback

from auth_tables_common import (
    ADMIN_PASSWORD_VARIABLE,
    ADMIN_VARIABLE,
    AccountError,
    administrator,
    migration_lock,
    prepare_accounts,
)


def main():
    """Do it while no other migration runs."""
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    try:
        account = administrator(os.environ)
        if account is None:
            raise AccountError(f"{ADMIN_VARIABLE} or {ADMIN_PASSWORD_VARIABLE} is not set")
        with migration_lock(uri):
            done = prepare_accounts(uri, *account)
    except AccountError as error:
        sys.exit(str(error))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    print(done, flush=True)


if __name__ == "__main__":
    main()

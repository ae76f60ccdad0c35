"""An opened server: its settings, its database and its rules, ready to be asked."""

from __future__ import annotations

from dataclasses import dataclass

from argon2 import PasswordHasher
from cryptography.fernet import InvalidToken
from sqlalchemy.exc import DatabaseError, OperationalError

from flowauth_rotator.server import schema_version, signing
from flowauth_rotator.server.administration import Administration
from flowauth_rotator.server.data_dir import (
    ENCRYPTION_KEYS,
    METRICS_TOKEN,
    SIGNING_KEY,
    DataDirectory,
)
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import SetupError, Unreachable
from flowauth_rotator.server.history import History
from flowauth_rotator.server.issuing import Issuing
from flowauth_rotator.server.settings import Settings
from flowauth_rotator.server.signing import Keyring, Signer


@dataclass(frozen=True)
class Services:
    """What the views and the commands work with."""

    settings: Settings
    directory: DataDirectory
    database: Database
    history: History
    keyring: Keyring
    accounts: Administration
    issuing: Issuing

    @classmethod
    def make(
        cls, settings: Settings, signing_key: signing.PrivateKey | None = None, *, now: int
    ) -> None:
        """Make a data directory and the tables.

        Args:
            settings: Where to.
            signing_key: The key to sign with; a new one for RS256 is generated without it.
            now: Seconds since the epoch.

        Raises:
            SetupError: Something is there already, the directory cannot be made, or the database
                cannot be used: then `upgrade` makes the tables once it can.
        """
        if settings.database_url is not None:
            _refuse_used(settings)
        key = signing_key or signing.generate_key()
        settings.directory.make(signing.private_pem(key))
        services = cls.assemble(settings)
        try:
            schema_version.upgrade(services.database)
            with services.database.writing() as connection:
                services.keyring.record(connection, Signer(key), now)
        except DatabaseError as error:
            raise SetupError(
                f"{_unusable_database(settings, error)} The keys are made: make the tables with "
                "`flowauth-rotator server upgrade`."
            ) from None
        finally:
            services.database.close()

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        signer: Signer | None = None,
        hasher: PasswordHasher | None = None,
    ) -> Services:
        """Open what a data directory holds, seen to work.

        Args:
            settings: Where it is.
            signer: What signs tokens, in place of the data directory's own key.
            hasher: What hashes passwords, in place of Argon2 with its library's parameters.

        Raises:
            SetupError: A part is missing or unusable; says which and what to do.
        """
        services = cls.assemble(settings, signer, hasher)
        try:
            services.check()
        except BaseException:
            services.database.close()
            raise
        return services

    @classmethod
    def assemble(
        cls,
        settings: Settings,
        signer: Signer | None = None,
        hasher: PasswordHasher | None = None,
    ) -> Services:
        """Put the parts together, unchecked: what mends a server must run when it cannot."""
        directory = settings.directory
        database = settings.database()
        history = History(directory.cipher)
        keyring = Keyring((lambda: signer) if signer else directory.signer, database)
        accounts = Administration(database, hasher or PasswordHasher(), settings.sign_in_limit)
        issuing = Issuing(database, accounts, history, keyring, settings)
        return cls(settings, directory, database, history, keyring, accounts, issuing)

    def check(self) -> None:
        """Make sure that tokens can be issued: the database answers, and the keys are its own.

        Raises:
            SetupError: A key is unusable or is not the one that the database knows, or the
                database cannot be used or has another version's tables.
        """
        self.directory.check()
        self.directory.check_contents()
        try:
            schema_version.check(self.database)
            with self.database.reading() as connection:
                if not self.keyring.is_recorded(connection):
                    raise self.directory.unusable(
                        SIGNING_KEY, "is not a key that the database knows"
                    )
                self.history.check_keys(connection)
        except InvalidToken:
            raise self.directory.unusable(
                ENCRYPTION_KEYS, "lacks the key that the tokens were stored with"
            ) from None
        except DatabaseError as error:
            raise _unusable_database(self.settings, error) from None


def upgrade(settings: Settings, *, now: int) -> tuple[str, str]:
    """Bring a data directory and its database to what this version needs.

    Returns:
        The version of the tables before and after.

    Raises:
        SetupError: A part is missing or unusable, or the database is newer than this program.
    """
    settings.directory.check(METRICS_TOKEN)
    settings.directory.add_missing_metrics_token()
    services = Services.assemble(settings)
    try:
        versions = schema_version.upgrade(services.database)
        with services.database.writing() as connection:
            services.keyring.adopt_nameless(connection, now)
    except DatabaseError as error:
        raise _unusable_database(settings, error) from None
    finally:
        services.database.close()
    return versions


def _refuse_used(settings: Settings) -> None:
    database = settings.database()
    try:
        used = schema_version.current(database) is not None
    except DatabaseError as error:
        raise _unusable_database(settings, error) from None
    finally:
        database.close()
    if used:
        raise SetupError(
            f"{settings.database_name} has the tables of a server already: for a second server, "
            "copy the data directory of the first."
        )


def _unusable_database(settings: Settings, error: DatabaseError) -> SetupError:
    """The error of a database, on one line and without the statement that met it."""
    reason = " ".join(str(error.orig).split())
    if settings.database_url is not None:
        advice = "see that it runs, and that DATABASE_URL is right"
    elif isinstance(error, OperationalError):  # of the disk, say, and not of what is on it
        advice = "see that its disk has space and can be written"
    else:
        advice = "restore it from a backup"
    kind = Unreachable if isinstance(error, OperationalError) else SetupError
    return kind(f"{settings.database_name} cannot be used ({reason}): {advice}.")

"""The services of one server, which its views and commands share."""

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
from flowauth_rotator.server.errors import DatabaseUnreachable, SetupError
from flowauth_rotator.server.history import History
from flowauth_rotator.server.issuing import TokenIssuer
from flowauth_rotator.server.listing import Listing
from flowauth_rotator.server.settings import Settings
from flowauth_rotator.server.signing import Keyring, Signer


@dataclass(frozen=True)
class Services:
    """The objects that the views and the commands use."""

    settings: Settings
    directory: DataDirectory
    database: Database
    history: History
    keyring: Keyring
    accounts: Administration
    issuer: TokenIssuer
    listing: Listing

    @classmethod
    def create(
        cls, settings: Settings, signing_key: signing.PrivateKey | None = None, *, now: int
    ) -> None:
        """Create a data directory and the tables.

        Args:
            settings: The settings of the server.
            signing_key: The signing key; by default a new one for RS256.
            now: Seconds since the epoch.

        Raises:
            SetupError: The directory or the database is in use or unusable. If only the database
                is, the keys exist, and `upgrade_server` can create the tables later.
        """
        if settings.database_url is not None:
            _refuse_used_database(settings)
        key = signing_key or signing.generate_key()
        settings.directory.create(signing.encode_private_key(key))
        services = cls.build(settings)
        try:
            schema_version.upgrade_schema(services.database)
            with services.database.writing() as connection:
                services.keyring.record(connection, Signer(key), now)
        except DatabaseError as error:
            raise SetupError(
                f"{_build_database_error(settings, error)} The keys were created: create the "
                "tables with `flowauth-rotator server upgrade`."
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
        """Open a data directory and verify that tokens can be issued.

        Args:
            settings: The settings of the server.
            signer: Replaces the signing key of the data directory.
            hasher: Hashes passwords; by default Argon2 with its library's parameters.

        Raises:
            SetupError: A file, a key or the database is unusable, or other users can access it.
        """
        services = cls.build(settings, signer, hasher)
        try:
            services.verify()
            services.directory.verify_permissions()
        except BaseException:
            services.database.close()
            raise
        return services

    @classmethod
    def build(
        cls,
        settings: Settings,
        signer: Signer | None = None,
        hasher: PasswordHasher | None = None,
    ) -> Services:
        """Build the services without verifying them, for commands that repair a server."""
        directory = settings.directory
        database = settings.build_database()
        history = History(directory.load_cipher)
        keyring = Keyring((lambda: signer) if signer else directory.load_signer, database)
        accounts = Administration(database, hasher or PasswordHasher(), settings.sign_in_limit)
        issuer = TokenIssuer(database, accounts, history, keyring, settings)
        listing = Listing(database, accounts, history, settings)
        return cls(settings, directory, database, history, keyring, accounts, issuer, listing)

    def verify(self) -> None:
        """Verify that tokens can be issued: the database is usable, and the keys belong to it.

        Raises:
            SetupError: A key is unusable or does not belong to the database, or the database is
                unusable or has another schema version.
        """
        self.directory.verify_files()
        self.directory.verify_contents()
        try:
            schema_version.verify_version(self.database)
            with self.database.reading() as connection:
                if not self.keyring.is_recorded(connection):
                    raise self.directory.build_error(SIGNING_KEY, "is not a key of this database")
                self.history.verify_keys(connection)
        except InvalidToken:
            raise self.directory.build_error(
                ENCRYPTION_KEYS, "lacks the key that encrypted the stored tokens"
            ) from None
        except DatabaseError as error:
            raise _build_database_error(self.settings, error) from None


def upgrade_server(settings: Settings, *, now: int) -> tuple[str, str]:
    """Upgrade a data directory and its database for this version.

    Returns:
        The versions of the schema before and after.

    Raises:
        SetupError: A file or the database is unusable, or the schema is newer than this program.
    """
    settings.directory.verify_files(METRICS_TOKEN)
    settings.directory.add_missing_metrics_token()
    services = Services.build(settings)
    try:
        versions = schema_version.upgrade_schema(services.database)
        with services.database.writing() as connection:
            services.keyring.record_first_key(connection, now)
    except DatabaseError as error:
        raise _build_database_error(settings, error) from None
    finally:
        services.database.close()
    return versions


def _refuse_used_database(settings: Settings) -> None:
    database = settings.build_database()
    try:
        is_used = schema_version.read_version(database) is not None
    except DatabaseError as error:
        raise _build_database_error(settings, error) from None
    finally:
        database.close()
    if is_used:
        raise SetupError(
            f"{settings.database_name} already contains the tables of a server: for a second "
            "server, copy the data directory of the first."
        )


def _build_database_error(settings: Settings, error: DatabaseError) -> SetupError:
    """Build a one-line error for an unusable database, without the SQL statement."""
    reason = " ".join(str(error.orig).split())
    if settings.database_url is not None:
        advice = "verify that it is running and that DATABASE_URL is correct"
    elif isinstance(error, OperationalError):  # such as a full disk: the file itself is intact
        advice = "verify that its disk has space and is writable"
    else:
        advice = "restore it from a backup"
    error_type = DatabaseUnreachable if isinstance(error, OperationalError) else SetupError
    return error_type(f"{settings.database_name} is unusable ({reason}): {advice}.")

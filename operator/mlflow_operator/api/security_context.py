"""Security context of pods: the fields that cannot undo the restricted Pod Security Standard."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int64, ListAtomic
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule

_MAX_ID = 2**31 - 1

GroupID = Annotated[Int64, Field(ge=0, le=_MAX_ID)]


class GroupChangePolicy(StrEnum):
    """When the ownership of volumes is changed."""

    ALWAYS = "Always"
    ON_ROOT_MISMATCH = "OnRootMismatch"


class SupplementalGroupsPolicy(StrEnum):
    """How the groups of a process are determined."""

    MERGE = "Merge"
    STRICT = "Strict"


class ProfileType(StrEnum):
    """Source of a seccomp or AppArmor profile."""

    RUNTIME_DEFAULT = "RuntimeDefault"
    LOCALHOST = "Localhost"


class SecurityProfile(Model):
    """Seccomp or AppArmor profile. Unconfined is not supported."""

    type: ProfileType
    """RuntimeDefault: the default profile of the container runtime. Localhost: a profile on the node."""
    localhost_profile: Annotated[
        str | None, Field(max_length=512), Field(examples=["profiles/mlflow.json"])
    ] = None
    """Profile on the node. Requires type Localhost."""

    rules = (
        Rule(
            "has(self.localhostProfile) == (self.type == 'Localhost')",
            "localhostProfile must be set with type Localhost, and only with it",
            field=".localhostProfile",
            holds=lambda profile: (
                (profile.localhost_profile is not None) == (profile.type is ProfileType.LOCALHOST)
            ),
        ),
    )


class SELinuxOptions(Model):
    """SELinux context of the containers. User, role and type are those of the container runtime."""

    level: Annotated[str, Field(max_length=256), Field(examples=["s0:c26,c5"])]
    """SELinux level."""


class SecurityContext(Model):
    """Security context of all pods of the server, within the restricted Pod Security Standard."""

    run_as_user: Annotated[Int64 | None, Field(ge=0, le=_MAX_ID), Field(examples=[1000650000])] = None
    """User ID of the processes. It must not be 0. Defaults to the user that the operator chooses for the image."""
    run_as_group: Annotated[GroupID | None, Field(examples=[1000650000])] = None
    """Group ID of the processes. Defaults to the user ID that the operator chooses for the image."""
    run_as_non_root: Annotated[bool | None, Field(examples=[True])] = None
    """Whether the kubelet checks that the user is not root. It must not be false. Defaults to true."""
    fs_group: Annotated[GroupID | None, Field(examples=[1000650000])] = None
    """Group that owns the volumes. Defaults to the user ID that the operator chooses for the image."""
    fs_group_change_policy: GroupChangePolicy | None = None
    """When the ownership of volumes is changed. Always: at each start. OnRootMismatch: if the owner of the root
    directory differs. Defaults to OnRootMismatch.
    """
    supplemental_groups: (
        Annotated[tuple[GroupID, ...], Field(max_length=32), ListAtomic(), Field(examples=[[1000]])] | None
    ) = None
    """Additional groups of the processes."""
    supplemental_groups_policy: SupplementalGroupsPolicy | None = None
    """How the groups of a process are determined. Merge: the groups of the user in the image are added. Strict: they
    are not. Requires Kubernetes 1.33. Defaults to Merge.
    """
    seccomp_profile: SecurityProfile | None = None
    """Seccomp profile of the containers. Defaults to RuntimeDefault."""
    app_armor_profile: SecurityProfile | None = None
    """AppArmor profile of the containers. Defaults to the one of the container runtime."""
    se_linux_options: SELinuxOptions | None = None
    """SELinux context of the containers."""

    rules = (
        Rule(
            "!has(self.runAsUser) || self.runAsUser != 0",
            "runAsUser must not be 0: the pods never run as root. Use another user ID, or remove runAsUser",
            field=".runAsUser",
            holds=lambda context: context.run_as_user != 0,
        ),
        Rule(
            "!has(self.runAsNonRoot) || self.runAsNonRoot",
            "runAsNonRoot must not be false: the pods never run as root. Remove runAsNonRoot",
            field=".runAsNonRoot",
            holds=lambda context: context.run_as_non_root is not False,
        ),
    )

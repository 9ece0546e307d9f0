"""What each error code of AWS means for a step: a table, so that nothing is sorted by chance.

Every code that botocore's models list for a call that we make is here, and those of EC2, which has none in its model
(EC2 API guide, "Error codes for the Amazon EC2 API"), and the codes that all services share. A test compares.
"""

from enum import Enum, auto


class Sort(Enum):
    """What becomes of a call that failed so."""

    TRANSIENT = auto()
    """The same call may succeed in a while."""
    DENIED = auto()
    """A permission is missing, or the credentials are not accepted."""
    GONE = auto()
    """What was named is not there: not any more, or not yet."""
    PERMANENT = auto()
    """The same call fails again."""


_CODES = {
    Sort.TRANSIENT: """
        Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException SlowDown
        RequestLimitExceeded BandwidthLimitExceeded LimitExceededException PriorRequestNotComplete EC2ThrottledException
        TooManyRequestsException ProvisionedThroughputExceededException TransactionInProgressException
        KMSThrottling KmsThrottlingException DependencyThrottle
        ServiceUnavailable Unavailable InternalError InternalFailure InternalServerError InternalServiceError
        ServiceException ServerException ServiceUnavailableException ServiceLinkedRoleFailure InsufficientCapacity
        RequestTimeout RequestTimeoutException RequestExpired RequestTimeTooSkewed
        ScalingActivityInProgress ResourceContention ResourceInUse IdempotentCallInProgress ConcurrentTagAccess
        OperationAborted HealthUnavailable InvalidNextToken
        ResourceNotReadyException ENINotReadyException ENILimitReachedException SubnetIPAddressLimitReachedException
        EC2UnexpectedException ResourceConflictException SnapStartNotReadyException SnapStartTimeoutException
        EFSMountConnectivityException EFSMountTimeoutException S3FilesMountConnectivityException
        S3FilesMountTimeoutException CodeArtifactUserPendingException
    """,
    Sort.DENIED: """
        AccessDenied AccessDeniedException AuthFailure AuthorizationError UnauthorizedOperation InvalidSecurity
        UnrecognizedClientException InvalidClientTokenId InvalidAccessKeyId ExpiredToken ExpiredTokenException
        SignatureDoesNotMatch IncompleteSignature MissingAuthenticationToken OptInRequired NotAuthorized
        KMSAccessDenied KmsAccessDeniedException KMSOptInRequired KMSAccessDeniedException
        EC2AccessDeniedException
    """,
    Sort.GONE: """
        InvalidInstanceID.NotFound InvalidGroup.NotFound InvalidSubnetID.NotFound
        InvalidLaunchTemplateId.NotFound InvalidLaunchTemplateId.VersionNotFound
        InvalidLaunchTemplateName.NotFoundException
        TargetGroupNotFound LoadBalancerNotFound AccessPointNotFound InvalidInstance InvalidTarget
        NoSuchBucket NoSuchKey NotFound NoSuchResourceException ResourceNotFoundException ResourceNotFound
        ExecutionDoesNotExist LoadBalancerAttributeNotFound
    """,
    Sort.PERMANENT: """
        ValidationError ValidationException InvalidParameterValue InvalidParameterCombination MissingParameter
        InvalidParameter ParameterValueInvalid InvalidInstanceID.Malformed InvalidRequest InvalidAction
        ClientException IllegalArgumentException InvalidArn InvalidToken InvalidInstanceType
        AlreadyExists LimitExceeded IdempotentParameterMismatch IncorrectInstanceState
        TooManyRegistrationsForTargetId TooManyTargets TooManyParts TagLimitExceeded
        EncryptionTypeMismatch InvalidObjectState InvalidWriteOffset EndpointDisabled PlatformApplicationDisabled
        KMSDisabled KMSInvalidState KMSNotFound KmsInvalidStateException
        KMSDisabledException KMSInvalidStateException KMSNotFoundException
        CodeArtifactUserDeletedException CodeArtifactUserFailedException DurableExecutionAlreadyStartedException
        EFSIOException EFSMountFailureException S3FilesMountFailureException SnapStartException
        SnapStartRegenerationFailureException InvalidParameterValueException InvalidRequestContentException
        InvalidRuntimeException InvalidSecurityGroupIDException InvalidSubnetIDException InvalidZipFileException
        ModeNotSupportedException NoPublishedVersionException RecursiveInvocationException RequestTooLargeException
        RuntimeAliasDeletedException RuntimeVersionDeletedException SerializedRequestEntityTooLargeException
        ServiceQuotaExceededException UnsupportedMediaTypeException
        InvalidAMIID.NotFound InvalidAMIID.Unavailable InvalidAMIID.Malformed
    """,
}

CODES = {code: sort for sort, codes in _CODES.items() for code in codes.split()}


def sort(code: str, status: int = 0) -> Sort:
    """What a code means; one that is not in the table is judged by its HTTP status.

    The table goes before the status: Lambda answers 502 for what no repetition cures.
    """
    for known in (code, code.removesuffix("Fault"), code.removesuffix("Exception")):
        if known in CODES:
            return CODES[known]
    return Sort.TRANSIENT if status >= 500 or status == 429 else Sort.PERMANENT

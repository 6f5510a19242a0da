package pkcs11

// class is what an answer of a token means for the call that got it.
type class int

const (
	// sick: the connection is of no more use. Replace it and try once more. Any
	// code that is not listed is one of these.
	sick class = iota
	// busy: the token has no room for this call now.
	busy
	// damaged: the token answered, and the ciphertext is not its.
	damaged
	// incapable: the token or the key cannot do what was asked, now or later.
	incapable
	// refused: the token will not, and trying again may lock it.
	refused
)

// Return values of PKCS#11 v2.40 that are acted on (pkcs11t.h).
const (
	ckrHostMemory              = 0x002
	ckrGeneralError            = 0x005
	ckrFunctionFailed          = 0x006
	ckrArgumentsBad            = 0x007
	ckrAttributeReadOnly       = 0x010
	ckrAttributeTypeInvalid    = 0x012
	ckrAttributeValueInvalid   = 0x013
	ckrDataInvalid             = 0x020
	ckrDataLenRange            = 0x021
	ckrDeviceError             = 0x030
	ckrDeviceMemory            = 0x031
	ckrEncryptedDataInvalid    = 0x040
	ckrEncryptedDataLenRange   = 0x041
	ckrFunctionNotSupported    = 0x054
	ckrKeyFunctionNotPermitted = 0x068
	ckrMechanismInvalid        = 0x070
	ckrMechanismParamInvalid   = 0x071
	ckrPinIncorrect            = 0x0A0
	ckrPinInvalid              = 0x0A1
	ckrPinLenRange             = 0x0A2
	ckrPinExpired              = 0x0A3
	ckrPinLocked               = 0x0A4
	ckrSessionCount            = 0x0B1
	ckrTemplateInconsistent    = 0x0D1
	ckrTokenWriteProtected     = 0x0E2
	ckrUserPinNotInitialized   = 0x102
	ckrNotInitialized          = 0x190
	ckrFunctionRejected        = 0x200
	ckrVendorDefined           = 0x80000000
)

func classify(code uint) class {
	switch code {
	case ckrHostMemory, ckrDeviceMemory, ckrSessionCount:
		return busy
	case ckrDataInvalid, ckrDataLenRange, ckrEncryptedDataInvalid, ckrEncryptedDataLenRange:
		return damaged
	case ckrArgumentsBad, ckrMechanismInvalid, ckrMechanismParamInvalid, ckrFunctionNotSupported, ckrKeyFunctionNotPermitted,
		ckrAttributeReadOnly, ckrAttributeTypeInvalid, ckrAttributeValueInvalid,
		ckrTemplateInconsistent, ckrTokenWriteProtected:
		return incapable
	case ckrPinIncorrect, ckrPinInvalid, ckrPinLenRange, ckrPinExpired, ckrPinLocked, ckrUserPinNotInitialized, ckrFunctionRejected:
		return refused
	}
	return sick
}

// ambiguous reports whether a token may say code of a damaged ciphertext too
// (SoftHSM says CKR_GENERAL_ERROR). Whether the key still opens a canary tells.
func ambiguous(code uint) bool {
	return code == ckrGeneralError || code == ckrFunctionFailed || code == ckrDeviceError || code >= ckrVendorDefined
}

package software

import (
	"crypto/fips140"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// maxIterations bounds the time that a hostile file can take: a few seconds.
const maxIterations = 10_000_000

// What RFC 5958 section 3 and RFC 8018 appendix A say an encrypted key looks like.
type (
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2Params struct {
		KDF    pkix.AlgorithmIdentifier
		Cipher pkix.AlgorithmIdentifier
	}
	pbkdf2Params struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

const (
	oidPBES2      = "1.2.840.113549.1.5.13"
	oidPBKDF2     = "1.2.840.113549.1.5.12"
	oidHMACSHA1   = "1.2.840.113549.2.7"
	oidHMACSHA256 = "1.2.840.113549.2.9"
	oidAES128CBC  = "2.16.840.1.101.3.4.1.2"
	oidAES192CBC  = "2.16.840.1.101.3.4.1.22"
	oidAES256CBC  = "2.16.840.1.101.3.4.1.42"
)

const howToEncrypt = "encrypt it with: openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256"

// checkPBES2 looks at an encrypted key before it is opened, so that what fails
// afterwards is the passphrase. Lengths are checked because the cipher panics on
// wrong ones.
func checkPBES2(der []byte) error {
	var key encryptedKey
	if rest, err := asn1.Unmarshal(der, &key); err != nil || len(rest) > 0 {
		return errors.New("not an encrypted PKCS#8 key")
	}
	if key.Algorithm.Algorithm.String() != oidPBES2 {
		return errors.New("encrypted in a way older than PBES2: " + howToEncrypt)
	}
	var params pbes2Params
	if _, err := asn1.Unmarshal(key.Algorithm.Parameters.FullBytes, &params); err != nil {
		return errors.New("unreadable PBES2 parameters")
	}
	if err := checkPBKDF2(params.KDF); err != nil {
		return err
	}
	switch params.Cipher.Algorithm.String() {
	case oidAES128CBC, oidAES192CBC, oidAES256CBC:
	default:
		return fmt.Errorf("cipher %v is not AES-CBC: %s", params.Cipher.Algorithm, howToEncrypt)
	}
	var iv []byte
	if _, err := asn1.Unmarshal(params.Cipher.Parameters.FullBytes, &iv); err != nil || len(iv) != 16 {
		return errors.New("initialisation vector is not 16 bytes long")
	}
	if len(key.Data) == 0 || len(key.Data)%16 != 0 {
		return errors.New("encrypted part is not whole blocks: the file is damaged")
	}
	return nil
}

func checkPBKDF2(kdf pkix.AlgorithmIdentifier) error {
	if kdf.Algorithm.String() != oidPBKDF2 {
		return fmt.Errorf("key derivation %v is not PBKDF2: %s", kdf.Algorithm, howToEncrypt)
	}
	var params pbkdf2Params
	if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &params); err != nil {
		return errors.New("unreadable PBKDF2 parameters")
	}
	if params.Iterations < 1 || params.Iterations > maxIterations {
		return fmt.Errorf("%d PBKDF2 iterations: want 1 to %d", params.Iterations, maxIterations)
	}
	prf := params.PRF.Algorithm.String()
	switch prf {
	case "", oidHMACSHA1, oidHMACSHA256:
	default:
		return fmt.Errorf("PBKDF2 with %s is not HMAC-SHA256: %s", prf, howToEncrypt)
	}
	if fips140.Enforced() && (len(params.Salt) < saltSize || prf != oidHMACSHA256) {
		return fmt.Errorf("FIPS 140 wants PBKDF2 with HMAC-SHA256 and a salt of %d bytes: make a key with coffer key create", saltSize)
	}
	return nil
}

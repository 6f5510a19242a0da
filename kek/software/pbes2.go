package software

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
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

const howToEncrypt = "encrypt it with: " + encryptCommand

// encryptCommand encrypts a key in a file of its own, which takes the place of the first:
// without -in and -out the key would be printed. KEK stands for the file.
const encryptCommand = "openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -in KEK -out KEK.new && chmod 600 KEK.new && mv KEK.new KEK"

// pbes2 is how a key is encrypted, and the encrypted key.
type pbes2 struct {
	kdf     pbkdf2Params
	hash    func() hash.Hash
	keySize int
	iv      []byte
	data    []byte // whole blocks, at least one
}

// errPadding: the last block does not end as PKCS#7 has it (RFC 8018, 6.1.1): the
// passphrase is wrong or the data damaged.
var errPadding = errors.New("padding is wrong")

// parsePBES2 reads an encrypted key. What fails afterwards is the passphrase.
func parsePBES2(der []byte) (pbes2, error) {
	var key encryptedKey
	if rest, err := asn1.Unmarshal(der, &key); err != nil || len(rest) > 0 {
		return pbes2{}, errors.New("not an encrypted PKCS#8 key")
	}
	if key.Algorithm.Algorithm.String() != oidPBES2 {
		return pbes2{}, errors.New("encrypted in a way older than PBES2: " + howToEncrypt)
	}
	var params pbes2Params
	if _, err := asn1.Unmarshal(key.Algorithm.Parameters.FullBytes, &params); err != nil {
		return pbes2{}, errors.New("unreadable PBES2 parameters")
	}
	out := pbes2{data: key.Data}
	if err := out.parseKDF(params.KDF); err != nil {
		return pbes2{}, err
	}
	switch params.Cipher.Algorithm.String() {
	case oidAES128CBC:
		out.keySize = 16
	case oidAES192CBC:
		out.keySize = 24
	case oidAES256CBC:
		out.keySize = 32
	default:
		return pbes2{}, fmt.Errorf("cipher %v is not AES-CBC: %s", params.Cipher.Algorithm, howToEncrypt)
	}
	if n := out.kdf.KeyLength; n != 0 && n != out.keySize {
		return pbes2{}, fmt.Errorf("PBKDF2 for keys of %d bytes and a cipher with %d", n, out.keySize)
	}
	if _, err := asn1.Unmarshal(params.Cipher.Parameters.FullBytes, &out.iv); err != nil || len(out.iv) != aes.BlockSize {
		return pbes2{}, errors.New("initialisation vector is not 16 bytes long")
	}
	if len(out.data) == 0 || len(out.data)%aes.BlockSize != 0 {
		return pbes2{}, errors.New("encrypted part is not whole blocks: the file is damaged")
	}
	return out, nil
}

func (p *pbes2) parseKDF(kdf pkix.AlgorithmIdentifier) error {
	if kdf.Algorithm.String() != oidPBKDF2 {
		return fmt.Errorf("key derivation %v is not PBKDF2: %s", kdf.Algorithm, howToEncrypt)
	}
	if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p.kdf); err != nil {
		return errors.New("unreadable PBKDF2 parameters")
	}
	if p.kdf.Iterations < 1 || p.kdf.Iterations > maxIterations {
		return fmt.Errorf("%d PBKDF2 iterations: want 1 to %d", p.kdf.Iterations, maxIterations)
	}
	prf := p.kdf.PRF.Algorithm.String()
	switch prf {
	case "", oidHMACSHA1:
		p.hash = sha1.New
	case oidHMACSHA256:
		p.hash = sha256.New
	default:
		return fmt.Errorf("PBKDF2 with %s is not HMAC-SHA256: %s", prf, howToEncrypt)
	}
	if fips140.Enforced() && (len(p.kdf.Salt) < saltSize || prf != oidHMACSHA256) {
		return fmt.Errorf("FIPS 140 wants PBKDF2 with HMAC-SHA256 and a salt of %d bytes: make a key with coffer key create", saltSize)
	}
	return nil
}

// decrypt returns what is encrypted, or errPadding.
func (p pbes2) decrypt(passphrase []byte) ([]byte, error) {
	block, err := p.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(p.data))
	cipher.NewCBCDecrypter(block, p.iv).CryptBlocks(out, p.data)
	pad := int(out[len(out)-1])
	if pad < 1 || pad > aes.BlockSize {
		clear(out)
		return nil, errPadding
	}
	for _, b := range out[len(out)-pad:] {
		if int(b) != pad {
			clear(out)
			return nil, errPadding
		}
	}
	return out[:len(out)-pad], nil
}

func (p pbes2) cipher(passphrase []byte) (cipher.Block, error) {
	key, err := pbkdf2.Key(p.hash, string(passphrase), p.kdf.Salt, p.kdf.Iterations, p.keySize)
	if err != nil {
		return nil, fmt.Errorf("derive a key from the passphrase: %w", err)
	}
	defer clear(key)
	return aes.NewCipher(key)
}

// encrypt returns der as an EncryptedPrivateKeyInfo.
func encrypt(der, passphrase []byte) ([]byte, error) {
	random := make([]byte, saltSize+aes.BlockSize)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("make a salt: %w", err)
	}
	p := pbes2{hash: sha256.New, keySize: 32, iv: random[saltSize:]}
	p.kdf = pbkdf2Params{Salt: random[:saltSize], Iterations: iterations, PRF: algorithm(oidHMACSHA256, asn1.NullBytes)}
	block, err := p.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	data := append(make([]byte, 0, len(der)+pad), der...)
	for range pad {
		data = append(data, byte(pad))
	}
	cipher.NewCBCEncrypter(block, p.iv).CryptBlocks(data, data)
	kdf, err1 := asn1.Marshal(p.kdf)
	iv, err2 := asn1.Marshal(p.iv)
	scheme, err3 := asn1.Marshal(pbes2Params{KDF: algorithm(oidPBKDF2, kdf), Cipher: algorithm(oidAES256CBC, iv)})
	out, err4 := asn1.Marshal(encryptedKey{Algorithm: algorithm(oidPBES2, scheme), Data: data})
	return out, errors.Join(err1, err2, err3, err4)
}

// algorithm returns an AlgorithmIdentifier with parameters in DER.
func algorithm(oid string, params []byte) pkix.AlgorithmIdentifier {
	var numbers asn1.ObjectIdentifier
	for part := range strings.SplitSeq(oid, ".") {
		n, _ := strconv.Atoi(part) // the constants above are numbers
		numbers = append(numbers, n)
	}
	return pkix.AlgorithmIdentifier{Algorithm: numbers, Parameters: asn1.RawValue{FullBytes: params}}
}

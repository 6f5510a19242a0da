package software

import (
	"bytes"
	"crypto/mlkem"
	"errors"
	"fmt"
)

// A private ML-KEM-768 key in PKCS#8 is one of two texts of fixed length (RFC 9935,
// 6): version 0, id-alg-ml-kem-768, and an octet string with the seed, or with the
// seed and what follows from it, which OpenSSL writes unless told otherwise. The
// third form has no seed; it is not read.
const (
	prefixSeed = "\x30\x54\x02\x01\x00" + algorithmMLKEM768 + "\x04\x42\x80\x40"
	prefixBoth = "\x30\x82\x09\xbe\x02\x01\x00" + algorithmMLKEM768 + "\x04\x82\x09\xaa\x30\x82\x09\xa6\x04\x40"
	// algorithmMLKEM768 is AlgorithmIdentifier 2.16.840.1.101.3.4.4.2 without
	// parameters.
	algorithmMLKEM768 = "\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x04\x02"
	prefixExpanded    = "\x04\x82\x09\x60"
	sizeExpanded      = 2400
	// Where the public key is in the expanded one, and the second half of the seed
	// (FIPS 203, algorithm 16).
	publicInExpanded = 1152
	zInExpanded      = sizeExpanded - 32
)

func marshalMLKEM768(key *mlkem.DecapsulationKey768) []byte {
	seed := key.Bytes()
	defer clear(seed)
	return append(append(make([]byte, 0, len(prefixSeed)+len(seed)), prefixSeed...), seed...)
}

// isMLKEM768 reports whether a PKCS#8 key says that it is one.
func isMLKEM768(der []byte) bool {
	_, _, found := bytes.Cut(der[:min(len(der), len(prefixBoth))], []byte(algorithmMLKEM768))
	return found
}

func parseMLKEM768(der []byte) (*mlkem.DecapsulationKey768, error) {
	if seed, ok := bytes.CutPrefix(der, []byte(prefixSeed)); ok {
		return fromSeed(seed)
	}
	rest, ok := bytes.CutPrefix(der, []byte(prefixBoth))
	if !ok || len(rest) != mlkem.SeedSize+len(prefixExpanded)+sizeExpanded {
		return nil, errors.New("ML-KEM-768 key without its seed, or damaged: want the seed form of RFC 9935")
	}
	seed, expanded := rest[:mlkem.SeedSize], rest[mlkem.SeedSize:]
	key, err := fromSeed(seed)
	if err != nil {
		return nil, err
	}
	public := key.EncapsulationKey().Bytes()
	expanded, ok = bytes.CutPrefix(expanded, []byte(prefixExpanded))
	if !ok || !bytes.Equal(expanded[publicInExpanded:publicInExpanded+len(public)], public) || !bytes.Equal(expanded[zInExpanded:], seed[32:]) {
		return nil, errors.New("ML-KEM-768 key whose seed and numbers do not belong together: it is damaged")
	}
	return key, nil
}

func fromSeed(seed []byte) (*mlkem.DecapsulationKey768, error) {
	key, err := mlkem.NewDecapsulationKey768(seed)
	if err != nil {
		return nil, fmt.Errorf("read ML-KEM-768 key: %w", err)
	}
	return key, nil
}

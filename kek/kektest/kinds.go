package kektest

import (
	"bytes"
	"crypto/mlkem"
	"testing"

	"github.com/cofferbackup/coffer/kek"
)

// size returns how long a wrapping of so many bytes is under the key of r.
func size(r kek.Ref, secret int) int {
	modulus := (r.Bits + 7) / 8
	if r.Algorithm == kek.HybridMLKEM768 {
		return modulus + mlkem.CiphertextSize768 + 12 + secret + 16
	}
	return modulus
}

// kinds: a wrapping that says it is of another kind than its key is refused before
// anyone is asked.
func kinds(t *testing.T, p Provider) {
	if p.Key.Ref().Algorithm == kek.HybridMLKEM768 {
		halves(t, p)
		spliced(t, p)
		return
	}
	w := wrap(t, p.Key, []byte("secret"))
	w.Algorithm = kek.HybridMLKEM768
	refuse(t, p.Key, w, kek.ErrWrongKey)
	w.Ciphertext = append(w.Ciphertext, make([]byte, mlkem.CiphertextSize768+12+32+16)...)
	refuse(t, p.Key, w, kek.ErrWrongKey)
}

// halves: a hybrid key opens nothing by RSA alone. The first part of a wrapping
// would open so, to what protects the rest.
func halves(t *testing.T, p Provider) {
	for _, alg := range []kek.Algorithm{kek.OAEPSHA256, kek.OAEPSHA1} {
		w := wrap(t, p.Key, []byte("secret"))
		w.Algorithm = alg
		refuse(t, p.Key, w, kek.ErrWrongKey)
		w.Ciphertext = w.Ciphertext[:(p.Key.Ref().Bits+7)/8]
		refuse(t, p.Key, w, kek.ErrWrongKey)
	}
}

// spliced puts parts of one wrapping of a hybrid key into another.
func spliced(t *testing.T, p Provider) {
	modulus := (p.Key.Ref().Bits + 7) / 8
	ends := []int{0, modulus, modulus + mlkem.CiphertextSize768, size(p.Key.Ref(), len("secret"))}
	for part := range len(ends) - 1 {
		one, two := wrap(t, p.Key, []byte("secret")), wrap(t, p.Key, []byte("secret"))
		copy(one.Ciphertext[ends[part]:ends[part+1]], two.Ciphertext[ends[part]:])
		refuse(t, p.Key, one, kek.ErrWrongKey)
		unwrap(t, p.Key, two)
	}
	w := wrap(t, p.Key, []byte("secret"))
	for _, n := range []int{modulus - 1, modulus, modulus + 1, ends[2], ends[2] + 28, len(w.Ciphertext) - 1} {
		short := w
		short.Ciphertext = bytes.Clone(w.Ciphertext[:n])
		refuse(t, p.Key, short, kek.ErrWrongKey)
	}
}

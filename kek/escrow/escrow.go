// Package escrow wraps with a key whose private half is in a safe: the last way
// back when the HSM has burnt and the cloud account is gone. The agent has only the
// public half, in a PEM file; everything is wrapped with it too, and nothing on this
// host can open what is.
//
// To make one, on a machine that is not connected to anything:
//
//	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -aes-256-cbc -out escrow-private.pem
//	openssl pkey -in escrow-private.pem -pubout -out escrow.pem
//
// Print and seal escrow-private.pem and its passphrase, in two places; take
// escrow.pem, which is not secret, to the host, owned by root with mode 0644, and
// name it in the configuration:
//
//	keys:
//	  safe: {public: /etc/coffer/escrow.pem}
//
// To use it, on any machine, with the private half and its passphrase, each in a
// file of mode 0600, and the store:
//
//	cofferd rescue --store URL --vault-id ID \
//	    --key "file:///root/escrow-private.pem?passphrase-source=file:/root/pass" ls
//
// The file holds one RSA key of 2048 to 4096 bits in a block PUBLIC KEY, RSA PUBLIC
// KEY or CERTIFICATE, of which only the key counts: names and dates of a certificate
// mean nothing here. For a hybrid key (kek.HybridMLKEM768) a block PUBLIC KEY with an
// ML-KEM-768 key (RFC 9935, 4) follows; OpenSSL 3.5 makes one:
//
//	openssl genpkey -algorithm ML-KEM-768 -aes-256-cbc -out mlkem-private.pem
//	openssl pkey -in mlkem-private.pem -pubout >> escrow.pem
//	cat mlkem-private.pem >> escrow-private.pem      # under the same passphrase
//
// A file with a private key in it is refused: it must not be on this host. So is one
// that others than its owner may write, for who replaces it can open what is backed
// up from then on.
package escrow

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/internal/calls"
)

// Key is the public half of an escrow key. It is a kek.Wrapper and no kek.Key.
type Key struct {
	ref kek.Ref
	pub kek.Hybrid // without MLKEM if the key is RSA alone
}

// Open reads the file at path, once. name is the key's name in the config. The error
// is kek.ErrMissing without the file, kek.ErrDenied if it may not be read,
// kek.ErrUnreachable if it cannot, and kek.ErrUnsuitable if its content will not do.
func Open(ctx context.Context, name, path string) (*Key, error) {
	var pub kek.Hybrid
	_, err := calls.New(1).Do(ctx, "read "+path, func() ([]byte, error) {
		text, err := read(path)
		if err != nil {
			return nil, err
		}
		pub, err = parse(path, text)
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	if err := kek.CheckRSA(pub.RSA); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	algorithm := kek.OAEPSHA256
	fingerprint, err := kek.FingerprintOf(pub.RSA)
	if pub.MLKEM != nil {
		algorithm = kek.HybridMLKEM768
		fingerprint, err = pub.Fingerprint()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, path, err)
	}
	return &Key{pub: pub, ref: kek.Ref{
		Name: name, Provider: kek.Escrow, URI: "escrow:" + url.PathEscape(filepath.Base(path)),
		Bits: pub.RSA.N.BitLen(), Algorithm: algorithm, Fingerprint: fingerprint,
	}}, nil
}

// Ref names the key. Its URI has only the name of the file: where the private half
// is, nobody says.
func (k *Key) Ref() kek.Ref { return k.ref }

// Wrap encrypts secret with RSA-OAEP-256, and with ML-KEM-768 if the key is hybrid.
func (k *Key) Wrap(secret []byte) (kek.Wrapped, error) { return kek.WrapFor(k.ref, k.pub, secret) }

// String says which key it is.
func (k *Key) String() string { return k.ref.LogValue().String() }

// LogValue is that of Ref.
func (k *Key) LogValue() slog.Value { return k.ref.LogValue() }

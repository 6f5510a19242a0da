// Package pkcs11 uses KEKs in a hardware security module, or any other token,
// through the token's own PKCS#11 library.
//
//	pkcs11:token=backup;object=coffer-kek?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/coffer/pin
//
// CKA_LABEL is the name of a key and CKA_ID its version (see newID). A URI with an
// id pins that version; one without follows the newest.
//
// A Pool owns everything that the process has open with every module. It exists
// because a PKCS#11 library is one per process: login is per token and not per
// connection, initialising is per library, and none of it recovers by itself when
// the token has gone away. So for each token there is one connection, shared by
// its keys, and it is replaced as a whole when it is sick:
//
//   - A call that ends in an error of a lost connection closes every connection of
//     that library, initialises it anew, logs in, finds the key again and is made
//     once more. After that, attempts wait longer and longer, up to 30 seconds.
//   - A PIN that a token has refused is never sent again. Three wrong PINs lock
//     many a token for good.
//   - A call that hangs is left behind when its context is done, or after
//     Config.CallWait. It keeps one of the places for calls until the library lets
//     go of it.
//   - A token whose library is known to crash or hang when it is called twice at a
//     time is called once at a time.
//
// Wrapping never asks the token. OAEP uses SHA-256 if the token can, which is
// tried when a key is opened, else SHA-1.
//
// It needs cgo and Linux. In other builds a Pool opens nothing and says so.
package pkcs11

import (
	"log/slog"
	"time"
)

// Config is what a Pool needs. Log and Now must be set.
type Config struct {
	// Log gets what an operator must know of tokens: lost, back, PIN refused.
	Log *slog.Logger
	// Now is the clock, for backing off and for the versions of new keys.
	Now func() time.Time
	// CloseWait is how long a connection may take to close before it is left
	// behind. Zero is 5 seconds.
	CloseWait time.Duration
	// CallWait is how long a token may take to open a secret before the call is left
	// behind as unreachable, also where its context has no end: libraries are known
	// that never come back when their server dies. Zero is a minute.
	CallWait time.Duration
}

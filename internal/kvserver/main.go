// Kvserver is a Key Vault on this machine, to try Coffer with and to test it. It
// speaks the REST interface of Azure Key Vault and Microsoft Entra to the real Azure
// clients, over TLS, on a loopback address and on no other. Never use it for keys
// that protect anything: it keeps them in plain files.
//
//	kvserver [--state DIR] [--listen 127.0.0.1:0] [--vault corp] [--key backup]
//	kvserver ctl --state DIR VERB KEY
//
// The first form makes a vault with a key and runs until it is told to stop. It
// prints what to put into coffer.yaml. With --state the vault, its keys, address and
// certificate are the same at the next start.
//
// The second form does something to a key of a server that runs: rotate, disable,
// enable, delete, recover, purge, deny (the permission to use it) or allow.
//
// The folder of --state has, all with mode 0600: state.json (the vault and its
// private keys), settings.json (addresses and the application's id), client-secret,
// ca.pem, and while the server runs admin.json (where ctl reaches it, and a token
// that is new at each start).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// errUsage: the command line makes no sense.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "kvserver:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "kvserver:", err)
		os.Exit(1)
	}
}

// options are the command line of the first form.
type options struct {
	listen string
	state  string // "": a folder that is removed at the end
	vault  string
	key    string
	bits   int
	hsm    bool
}

func run(ctx context.Context, args []string, out, complaints io.Writer) error {
	if len(args) > 0 && args[0] == "ctl" {
		return ctl(ctx, args[1:], out, complaints)
	}
	var o options
	f := flag.NewFlagSet("kvserver", flag.ContinueOnError)
	f.SetOutput(complaints)
	f.StringVar(&o.listen, "listen", "", "loopback address (default: that of the last start, else 127.0.0.1 and a free port)")
	f.StringVar(&o.state, "state", "", "folder that keeps the vault for the next start")
	f.StringVar(&o.vault, "vault", kvtest.DefaultVault, "name of the vault")
	f.StringVar(&o.key, "key", "backup", "name of the key that a new vault has")
	f.IntVar(&o.bits, "bits", kek.DefaultBits, "size of that key")
	f.BoolVar(&o.hsm, "managed-hsm", false, "be a Managed HSM")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errUsage, err)
	case f.NArg() > 0:
		return fmt.Errorf("%w: %q is not a flag: see kvserver -h", errUsage, f.Arg(0))
	}
	if err := o.check(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return serve(ctx, o, out, complaints)
}

// check refuses what no server can be made with.
func (o options) check() error {
	if o.listen != "" {
		if err := kvtest.CheckLoopback(o.listen); err != nil {
			return err
		}
	}
	return errors.Join(kvtest.CheckName(o.vault), kvtest.CheckName(o.key), kek.CheckBits(o.bits))
}

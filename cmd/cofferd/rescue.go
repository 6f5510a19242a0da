package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/restore"
)

// rescueOptions are the flags of rescue.
type rescueOptions struct {
	store, vaultID string
	keys           []string
	credential     config.Credential // for keys in Key Vault
	paths          []string
	dryRun         bool
}

func rescueCommand() *cobra.Command {
	var o rescueOptions
	cmd := &cobra.Command{
		Use:   "rescue",
		Short: "List and restore without a service or a configuration",
		Long: `List and restore from nothing but a store's URL, the vault's id and one of its keys,
on a bare machine. The id is on the vault's recovery sheet; without it nothing in a
store is trusted.

Any one of the keys is enough. A key in Key Vault also takes who asks for it: a service
principal, by --tenant, --client and one of --client-certificate and
--client-secret-source; without them it is the managed identity of this machine (Azure
Arc).`,
		Example: `  cofferd rescue --store file:///mnt/backup --vault-id ID --key file:///root/kek.pem ls
  cofferd rescue --store s3://host:9000/bucket --vault-id ID --key 'pkcs11:token=backup;object=coffer-kek?module-path=...&pin-source=file:/root/pin' restore etc /mnt/new
  cofferd rescue --store s3://host:9000/bucket --vault-id ID --key https://corp.vault.azure.net/keys/backup --tenant T --client C --client-certificate /root/client.pem ls`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("rescue has no verb %q: it has ls and restore", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().NFlag() > 0 {
				return usageError{errors.New("what to do is not said: add ls, or restore ITEM[@POINT] TARGET")}
			}
			return cmd.Help()
		},
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.store, "store", "", "URL of the store")
	f.StringVar(&o.vaultID, "vault-id", "", "id of the vault")
	f.StringArrayVar(&o.keys, "key", nil, "URI of a key; may be given more than once")
	c := &o.credential
	f.StringVar(&c.Tenant, "tenant", "", "for Key Vault: id of the directory")
	f.StringVar(&c.Client, "client", "", "for Key Vault: id of the application, or of the user-assigned identity")
	f.StringVar(&c.Certificate, "client-certificate", "", "for Key Vault: PEM file with certificate and private key")
	f.StringVar(&c.SecretSource, "client-secret-source", "", "for Key Vault: where the client secret is, file:/path or env:NAME")
	f.StringVar(&c.Authority, "authority", "", "for Key Vault: authority of a sovereign cloud")
	f.StringVar(&c.CA, "ca", "", "for Key Vault: PEM file of authorities to trust beside the system's")
	f.StringVar(&c.Proxy, "proxy", "", "for Key Vault: URL of an HTTP proxy")
	ls := &cobra.Command{
		Use: "ls", Short: "List items and their points", Args: rescueTakes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withVault(cmd.Context(), o, func(ctx context.Context, r *rescue) error { return r.list(ctx, cmd.OutOrStdout()) })
		},
	}
	back := &cobra.Command{
		Use: "restore ITEM[@POINT] TARGET", Short: "Restore a point into a folder", Args: rescueTakes(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVault(cmd.Context(), o, func(ctx context.Context, r *rescue) error {
				return r.restore(ctx, cmd.OutOrStdout(), args[0], args[1], o)
			})
		},
	}
	back.Flags().StringArrayVar(&o.paths, "path", nil, "only this path of the point; may be given more than once")
	back.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be done")
	cmd.AddCommand(ls, back)
	return cmd
}

// rescueTakes refuses what is not so many words, or has an empty one: it would restore
// into the folder that cofferd was started in.
func rescueTakes(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n || slices.Contains(args, "") {
			return usageError{fmt.Errorf("it is: cofferd rescue --store URL --vault-id ID --key URI %s", cmd.Use)}
		}
		return nil
	}
}

// rescue is an open vault without a service.
type rescue struct {
	vault *catalog.Vault
	parts agent.Parts
	dir   string // for local indexes, gone at the end
	log   *slog.Logger
}

func withVault(ctx context.Context, o rescueOptions, do func(context.Context, *rescue) error) error {
	if o.store == "" || o.vaultID == "" || len(o.keys) == 0 {
		return usageError{fmt.Errorf("--store, --vault-id and --key are needed: they are on the vault's recovery sheet")}
	}
	if err := o.credentialKind(); err != nil {
		return usageError{err}
	}
	id, err := crypt.ParseVaultID(o.vaultID)
	if err != nil {
		return usageError{err}
	}
	if err := harden(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	parts, closeParts := newParts(log, time.Now)
	defer closeParts()
	st, err := parts.Store(ctx, config.Vault{Store: o.store})
	if err != nil {
		return rescueFault(err)
	}
	ring, err := o.ring(ctx, parts, log)
	if err != nil {
		return rescueFault(err)
	}
	defer ring.Close()
	v, err := catalog.Open(ctx, st, catalog.OpenOptions{ID: id, Ring: ring})
	if err != nil {
		return rescueFault(err)
	}
	defer v.Close()
	dir, err := os.MkdirTemp("", "coffer-rescue-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return rescueFault(do(ctx, &rescue{vault: v, parts: parts, dir: dir, log: log}))
}

// credentialKind completes the credential by what was given of it.
func (o *rescueOptions) credentialKind() error {
	c := &o.credential
	if *c == (config.Credential{}) {
		return nil
	}
	if !slices.ContainsFunc(o.keys, func(uri string) bool { return scheme(uri) == inKeyVault }) {
		return errors.New("--tenant, --client and what else is for Key Vault need a --key there: https://NAME.vault.azure.net/keys/KEY")
	}
	switch {
	case c.Certificate != "" && c.SecretSource != "":
		return errors.New("--client-certificate and --client-secret-source are two alternatives: give one")
	case c.Certificate != "":
		c.Kind = config.KindCertificate
	case c.SecretSource != "":
		c.Kind = config.KindSecret
	case c.Tenant != "":
		return errors.New("--tenant needs --client-certificate or --client-secret-source")
	default:
		c.Kind = config.KindArc
	}
	return nil
}

// ring opens the keys. One that opens is enough; it is said what is wrong with the
// others.
func (o *rescueOptions) ring(ctx context.Context, parts agent.Parts, log *slog.Logger) (*kek.Ring, error) {
	var keys []kek.Key
	var missing []error
	for i, uri := range o.keys {
		key := config.Key{URI: uri}
		if scheme(uri) == inKeyVault && o.credential.Kind != "" {
			key.Credential = &o.credential
		}
		opened, err := parts.Key(ctx, fmt.Sprintf("key %d", i+1), key)
		if err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", uri, err))
			continue
		}
		keys = append(keys, opened...)
	}
	if len(keys) == 0 {
		return nil, errors.Join(missing...)
	}
	for _, err := range missing {
		log.Warn("key does not open, going on with the others", "err", err)
	}
	return kek.NewRing(keys...), nil
}

func (r *rescue) list(ctx context.Context, w io.Writer) error {
	items, damaged := r.vault.Items(ctx)
	fmt.Fprintf(w, "vault %s, made %s\n\n", r.vault.ID(), r.vault.Created().Format(time.DateOnly))
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "ITEM\tPOINT\tTIME\tHOST\tHOLDS")
	for _, it := range items {
		names, err := it.Points(ctx)
		if err != nil {
			return err
		}
		for _, n := range names {
			p, err := it.Point(ctx, n)
			if err != nil {
				return err
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s, %s\n", it.Name(), n, n.Time().Local().Format("2006-01-02 15:04 MST"), p.Host,
				control.Counted(int64(p.Stats.Files), "file"), control.Size(int64(p.Stats.Bytes)))
		}
		it.Close()
	}
	return errors.Join(t.Flush(), damaged)
}

func (r *rescue) restore(ctx context.Context, w io.Writer, what, to string, o rescueOptions) error {
	name, selector, _ := strings.Cut(what, "@")
	it, err := r.vault.Item(ctx, name)
	if err != nil {
		return err
	}
	defer it.Close()
	var p *catalog.Point
	notes, err := point.PickReadable(ctx, it, selector, time.Now(), func(name catalog.PointName) (err error) {
		p, err = it.Point(ctx, name)
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintln(os.Stderr, "cofferd:", n)
	}
	index, err := r.parts.Index(ctx, filepath.Join(r.dir, it.ID().String()))
	if err != nil {
		return err
	}
	defer index.Close()
	if _, err := it.Sync(ctx, index); err != nil {
		return err
	}
	abs, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	into, err := r.parts.Target(abs)
	if err != nil {
		return err
	}
	done := new(restore.Progress)
	result, err := restore.Run(ctx, restore.Config{
		Point: p, Reader: it.NewReader(index), Target: into, Select: restore.Selection{Paths: o.paths},
		DryRun: o.dryRun, Progress: done,
	})
	if err != nil {
		return err
	}
	written := "written to"
	if o.dryRun {
		written = "would be written to"
	}
	fmt.Fprintf(w, "%s@%s: %s, %s %s %s\n", name, p.Name, control.Counted(int64(done.Files.Load()), "file"), control.Size(int64(done.Written.Load())), written, abs)
	for _, s := range result.Skipped {
		fmt.Fprintf(w, "skipped %q: %s\n", s.Path, s.Reason)
	}
	if n := done.Skipped.Load(); n > 0 {
		fmt.Fprintf(w, "%s could not be restored\n", control.Counted(int64(n), "entry"))
		return errSkipped
	}
	return nil
}

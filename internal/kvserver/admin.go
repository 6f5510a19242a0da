package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/internal/durable"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

const (
	adminFile = "admin.json"
	maxOrder  = 1 << 16 // the largest order or answer that is read
)

// door is where ctl reaches a server, and what it shows there.
type door struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// order is what ctl asks for.
type order struct {
	Verb string `json:"verb"`
	Key  string `json:"key"` // NAME or VAULT/NAME
}

// admin is the endpoint of ctl.
type admin struct {
	server *kvtest.Server
	vault  string // of a key that is named without one
	token  string
	file   string
	http   *http.Server
	done   chan struct{}
}

// startAdmin opens the endpoint and writes where it is.
func startAdmin(server *kvtest.Server, dir folder, vault string) (*admin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &admin{server: server, vault: vault, token: newSecret(), file: dir.path(adminFile), done: make(chan struct{})}
	a.http = &http.Server{Handler: a, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(a.done)
		_ = a.http.Serve(l) // ends with close
	}()
	text, err := json.Marshal(door{URL: "http://" + l.Addr().String() + "/", Token: a.token})
	if err == nil {
		err = durable.WriteFile(a.file, text)
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *admin) close() error {
	err := a.http.Close()
	<-a.done
	if gone := os.Remove(a.file); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// ServeHTTP obeys an order of somebody who can read the token.
func (a *admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	shown := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if subtle.ConstantTimeCompare([]byte(shown), []byte(a.token)) != 1 {
		http.Error(w, "the token is not that of this start", http.StatusUnauthorized)
		return
	}
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&o); err != nil || r.Method != http.MethodPost {
		http.Error(w, "the order cannot be read", http.StatusBadRequest)
		return
	}
	vault, key, ok := strings.Cut(o.Key, "/")
	if !ok {
		vault, key = a.vault, o.Key
	}
	if err := a.server.Command(o.Verb, vault, key); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// ctl is the second form of the command line.
func ctl(ctx context.Context, args []string, out, complaints io.Writer) error {
	f := flag.NewFlagSet("kvserver ctl", flag.ContinueOnError)
	f.SetOutput(complaints)
	state := f.String("state", "", "folder of the server, as it printed it")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errUsage, err)
	case *state == "" || f.NArg() != 2:
		return fmt.Errorf("%w: kvserver ctl --state DIR rotate|disable|enable|delete|recover|purge|deny|allow KEY", errUsage)
	}
	text, err := folder(*state).read(adminFile)
	if err != nil {
		return err
	}
	if text == nil {
		return fmt.Errorf("no kvserver runs on %s: start one with --state %s", *state, *state)
	}
	var d door
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("read %s: %w", folder(*state).path(adminFile), err)
	}
	o := order{Verb: f.Arg(0), Key: f.Arg(1)}
	if err := d.send(ctx, o); err != nil {
		return fmt.Errorf("%s %s: %w", o.Verb, o.Key, err)
	}
	_, err = fmt.Fprintf(out, "%s: %s done\n", o.Key, o.Verb)
	return err
}

// send gives an order to the server.
func (d door) send(ctx context.Context, o order) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+d.Token)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is on this machine
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	says, err := io.ReadAll(io.LimitReader(resp.Body, maxOrder))
	if err != nil {
		return err
	}
	return errors.New(strings.TrimSpace(string(says)))
}

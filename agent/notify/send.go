package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// send tries a channel once.
func (n *Notifier) send(ctx context.Context, cfg config.Notify, d delivery) error {
	if d.ping != nil {
		return n.sendPing(ctx, cfg.Ping, d.ping.signal)
	}
	switch {
	case cfg.Webhook != nil:
		return n.sendWebhook(ctx, cfg, d.notice)
	case cfg.SMTP != nil:
		return n.sendMail(ctx, cfg, d.notice)
	case len(cfg.Command) > 0:
		return n.sendCommand(ctx, cfg, d.notice)
	}
	return errors.New("the channel has neither webhook, smtp nor command")
}

// Check tries to reach a channel, and tells nobody anything: for the doctor. Whether
// what it needs is there counts too: its secrets, authorities and program.
func (n *Notifier) Check(ctx context.Context, cfg config.Notify) error {
	for _, text := range []string{cfg.Subject, cfg.Body} {
		if err := message.Check(text); err != nil {
			return err
		}
	}
	switch {
	case cfg.Webhook != nil:
		return n.reachWebhook(ctx, cfg.Webhook)
	case cfg.SMTP != nil:
		return n.reachMail(ctx, cfg.SMTP)
	case cfg.Ping != nil:
		return n.reachPing(ctx, cfg.Ping)
	case len(cfg.Command) > 0:
		return checkProgram(cfg.Command[0])
	}
	return errors.New("it has neither webhook, smtp, command nor ping")
}

// text renders a template, or the standard one if there is none, or if it fails on
// this notice: a notice is told in any case.
func (n *Notifier) text(custom, std string, m message.Notice) (string, error) {
	if custom != "" {
		t, err := message.Parse(custom)
		if err == nil {
			var text string
			if text, err = t.Render(m); err == nil {
				return text, nil
			}
		}
		n.cfg.Log.Warn("the standard text is used for a notice", "err", err)
	}
	t, err := message.Parse(std)
	if err != nil {
		return "", err
	}
	return t.Render(m)
}

// inJSON is what a webhook posts unless said otherwise.
func inJSON(m message.Notice) (string, error) {
	text, err := json.Marshal(m)
	return string(text), err
}

// secret reads a secret that the configuration names; "" if it names none.
func (n *Notifier) secret(ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	raw, err := n.cfg.Secret(ref)
	if err != nil {
		return "", err
	}
	defer clear(raw)
	return string(raw), nil
}

// trust returns how to know a server: by the system's authorities and those of a file.
func trust(ca string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read authorities: %s has no certificate in PEM", ca)
	}
	cfg.RootCAs = pool
	return cfg, nil
}

// loopback tells whether a host is this machine by its name or address alone.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

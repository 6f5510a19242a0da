package notify

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// portTLS is the port on which TLS is spoken from the start.
const portTLS = "465"

// ErrPlain: a mail server that is not this machine offers no TLS.
var ErrPlain = errors.New("the mail server offers no TLS")

// sendMail sends a notice as a mail.
func (n *Notifier) sendMail(ctx context.Context, cfg config.Notify, m message.Notice) error {
	subject, err := n.text(cfg.Subject, message.DefaultSubject, m)
	if err != nil {
		return err
	}
	body, err := n.text(cfg.Body, message.DefaultBody, m)
	if err != nil {
		return err
	}
	from, to, err := parties(cfg.SMTP)
	if err != nil {
		return err
	}
	return n.session(ctx, cfg.SMTP, func(c *smtp.Client) error {
		if err := c.Mail(from.Address); err != nil {
			return err
		}
		for _, a := range to {
			if err := c.Rcpt(a.Address); err != nil {
				return fmt.Errorf("to %s: %w", a.Address, err)
			}
		}
		w, err := c.Data()
		if err != nil {
			return err
		}
		if _, err := w.Write(letter(from, to, subject, body, m.Time)); err != nil {
			return err
		}
		return w.Close()
	})
}

// reachMail says hello, and shows who it is.
func (n *Notifier) reachMail(ctx context.Context, cfg *config.SMTP) error {
	if _, _, err := parties(cfg); err != nil {
		return err
	}
	return n.session(ctx, cfg, func(c *smtp.Client) error { return c.Noop() })
}

// parties are who writes and who is written to.
func parties(cfg *config.SMTP) (from *mail.Address, to []*mail.Address, err error) {
	if from, err = mail.ParseAddress(cfg.From); err != nil {
		return nil, nil, fmt.Errorf("from %q: %w", cfg.From, err)
	}
	for _, text := range cfg.To {
		a, err := mail.ParseAddress(text)
		if err != nil {
			return nil, nil, fmt.Errorf("to %q: %w", text, err)
		}
		to = append(to, a)
	}
	if len(to) == 0 {
		return nil, nil, errors.New("smtp.to names nobody")
	}
	return from, to, nil
}

// session connects to a mail server, has the connection encrypted unless the server is
// this machine, shows who it is, and does what is to be done.
func (n *Notifier) session(ctx context.Context, cfg *config.SMTP, do func(*smtp.Client) error) error {
	host, port, err := net.SplitHostPort(cfg.Server)
	if err != nil {
		return fmt.Errorf("smtp.server: %w", err)
	}
	password, err := n.secret(cfg.PasswordSource)
	if err != nil {
		return err
	}
	trusted, err := trust(cfg.CA)
	if err != nil {
		return err
	}
	trusted.ServerName = host
	conn, err := (&net.Dialer{Timeout: dialWait}).DialContext(ctx, "tcp", cfg.Server)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if port == portTLS {
		conn = tls.Client(conn, trusted)
	}
	if err := talk(conn, host, trusted, cfg.User, password, do); err != nil {
		return fmt.Errorf("mail server %s: %w", cfg.Server, err)
	}
	return nil
}

// talk is the conversation on a connection.
func talk(conn net.Conn, host string, trust *tls.Config, user, password string, do func(*smtp.Client) error) error {
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	defer c.Close()
	if ok, _ := c.Extension("STARTTLS"); ok {
		if err := c.StartTLS(trust); err != nil {
			return fmt.Errorf("start TLS: %w", err)
		}
	}
	if _, secure := c.TLSConnectionState(); !secure && !loopback(host) {
		return fmt.Errorf("%w: use its port %s, or one where it does", ErrPlain, portTLS)
	}
	if user != "" {
		if ok, _ := c.Extension("AUTH"); !ok {
			return fmt.Errorf("log in as %s: the server knows no AUTH: leave smtp.user out, or use another port", user)
		}
		if err := c.Auth(logIn(c, host, user, password)); err != nil {
			return fmt.Errorf("log in as %s: %w", user, err)
		}
	}
	if err := do(c); err != nil {
		return err
	}
	return c.Quit()
}

// logIn picks the way to show who we are that the server offers.
func logIn(c *smtp.Client, host, user, password string) smtp.Auth {
	_, ways := c.Extension("AUTH")
	for way := range strings.FieldsSeq(ways) {
		if strings.EqualFold(way, "PLAIN") {
			return smtp.PlainAuth("", user, password, host)
		}
	}
	return &loginAuth{host: host, user: user, password: password}
}

// loginAuth is AUTH LOGIN, which some servers offer alone.
type loginAuth struct{ host, user, password string }

func (a *loginAuth) Start(server *smtp.ServerInfo) (string, []byte, error) {
	if !server.TLS && !loopback(a.host) {
		return "", nil, ErrPlain
	}
	return "LOGIN", nil, nil
}

func (a *loginAuth) Next(asked []byte, more bool) ([]byte, error) {
	switch question := strings.ToLower(string(asked)); {
	case !more:
		return nil, nil
	case strings.HasPrefix(question, "user"):
		return []byte(a.user), nil
	case strings.HasPrefix(question, "password"):
		return []byte(a.password), nil
	}
	return nil, errors.New("the server asks for something else than user and password")
}

// letter is a mail of text (RFC 5322). No line end of a subject makes a header.
func letter(from *mail.Address, to []*mail.Address, subject, body string, at time.Time) []byte {
	var out bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&out, "%s: %s\r\n", name, value) }
	var names []string
	for _, a := range to {
		names = append(names, a.String())
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	header("From", from.String())
	header("To", strings.Join(names, ",\r\n "))
	header("Subject", mime.QEncoding.Encode("utf-8", brief(subject)))
	header("Date", at.Format(time.RFC1123Z))
	header("Message-ID", fmt.Sprintf("<%s@%s>", rand.Text(), domain))
	header("Auto-Submitted", "auto-generated")
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	out.WriteString("\r\n")
	w := quotedprintable.NewWriter(&out)
	w.Write([]byte(strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\n", "\r\n"))) // a buffer takes everything
	w.Close()
	return out.Bytes()
}

// connect opens a connection and closes it again.
func connect(ctx context.Context, address string, secure bool, trust *tls.Config) error {
	dialer := &net.Dialer{Timeout: dialWait}
	var conn net.Conn
	var err error
	if secure {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: trust}).DialContext(ctx, "tcp", address)
	} else {
		conn, err = dialer.DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return err
	}
	return conn.Close()
}

// brief is a subject on one line that fits in a header.
func brief(text string) string {
	const most = 200
	text = oneLine(text)
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + " ..."
	}
	return text
}

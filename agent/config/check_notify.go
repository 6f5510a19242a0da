package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/notify/message"
)

const minRepeat = Duration(time.Minute)

func checkNotify(p *problems, c *Config) {
	var kinds []string
	for _, k := range message.Kinds() {
		kinds = append(kinds, string(k))
	}
	for name, n := range c.Notify {
		field := "notify." + name
		checkName(p, field, "a notification", name)
		checkWays(p, field, n)
		for i, on := range n.On {
			checkOneOf(p, fmt.Sprintf("%s.on[%d]", field, i), on, kinds...)
		}
		if p.given(field+".on") && len(n.On) == 0 && !p.bad[field+".on"] {
			p.add(field+".on", "say what is told, or leave it out", "it tells nothing")
		}
		for i, item := range n.Items {
			if _, known := c.Items[item]; !known {
				p.add(fmt.Sprintf("%s.items[%d]", field, i), suggest(item, "items", slices.Sorted(maps.Keys(c.Items))), "there is no item %q", item)
			}
		}
		if p.given(field+".repeat") && (n.Repeat < minRepeat || n.Repeat > maxSpan) {
			p.add(field+".repeat", "use 1m or more", "such a time makes no sense")
		}
		checkTemplate(p, field+".subject", n.Subject)
		checkTemplate(p, field+".body", n.Body)
	}
}

// checkWays checks that there is one way, and that it is right.
func checkWays(p *problems, field string, n Notify) {
	var ways []string
	if n.Webhook != nil {
		ways = append(ways, "webhook")
		checkWebhook(p, field+".webhook", n.Webhook)
	}
	if n.SMTP != nil {
		ways = append(ways, "smtp")
		checkSMTP(p, field+".smtp", n.SMTP)
	}
	if n.Command != nil {
		ways = append(ways, "command")
		checkCommand(p, field+".command", n.Command)
	}
	if n.Ping != nil {
		ways = append(ways, "ping")
		checkTarget(p, field+".ping", n.Ping.URL, n.Ping.URLSource)
		checkAbs(p, field+".ping.ca", n.Ping.CA)
		for _, f := range []struct {
			name  string
			given bool
		}{{"on", len(n.On) > 0}, {"repeat", n.Repeat != 0}, {"subject", n.Subject != ""}, {"body", n.Body != ""}} {
			if f.given {
				p.add(field+"."+f.name, "leave it out", "a ping has none: it is sent for every backup of its items")
			}
		}
	}
	switch len(ways) {
	case 0:
		if !p.bad[field] && !p.given(field+".command") {
			p.add(field, "add webhook, smtp, command or ping", "it has no way to tell")
		}
	case 1:
	default:
		p.add(field+"."+ways[1], "make two of it", "a notification has one way, and this one has %s too", ways[0])
	}
}

func checkWebhook(p *problems, field string, w *Webhook) {
	if p.bad[field] {
		return
	}
	checkTarget(p, field, w.URL, w.URLSource)
	checkSecretSource(p, field+".token_source", w.TokenSource)
	if w.TokenSource != "" && plain(w.URL) {
		p.add(field+".url", "use https://", "a token would go over the network for everybody to read")
	}
	checkAbs(p, field+".ca", w.CA)
	for name, value := range w.Headers {
		at := field + ".headers." + name
		switch {
		case strings.EqualFold(name, "authorization"):
			p.add(at, "say where the token is: token_source: file:/path (mode 0600) or env:NAME", "a secret may not be in the configuration")
		case !headerName(name):
			p.add(at, "use letters, digits and -", "%q cannot be the name of a header", name)
		case strings.ContainsAny(value, "\r\n"):
			p.add(at, "write it in one line", "a header has no line breaks")
		}
	}
}

func headerName(name string) bool {
	odd := strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
	return name != "" && odd < 0
}

// checkTarget checks a URL that is there itself or by reference. It never repeats it.
func checkTarget(p *problems, field, target, source string) {
	switch {
	case target != "" && source != "":
		p.add(field+".url_source", "leave one of them out", "it has url too")
	case source != "":
		checkSecretSource(p, field+".url_source", source)
	case required(p, field+".url", target, `write url: "https://...", or url_source: file:/path if it is a secret`):
		checkServer(p, field+".url", target, "https", "http")
	}
}

// plain tells whether a URL would be called over the network without TLS.
func plain(target string) bool {
	u, err := url.Parse(target)
	return err == nil && u.Scheme == "http" && !loopback(u.Hostname())
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func checkSMTP(p *problems, field string, s *SMTP) {
	if p.bad[field] {
		return
	}
	if required(p, field+".server", s.Server, "write it as HOST:PORT, such as mail.example:587") {
		checkHostPort(p, field+".server", s.Server)
	}
	if required(p, field+".from", s.From, "say whom the mail is from") {
		checkMail(p, field+".from", s.From)
	}
	if len(s.To) == 0 {
		p.add(field+".to", "name those who get the mail", "it has no recipients")
	}
	for i, to := range s.To {
		checkMail(p, fmt.Sprintf("%s.to[%d]", field, i), to)
	}
	switch {
	case s.User != "" && s.PasswordSource == "":
		p.add(field+".password_source", secretForm, "it is missing, and there is a user")
	case s.User == "" && s.PasswordSource != "":
		p.add(field+".user", "name the user whose password it is", "it is missing")
	}
	checkSecretSource(p, field+".password_source", s.PasswordSource)
	checkAbs(p, field+".ca", s.CA)
}

func checkMail(p *problems, field, address string) {
	if _, err := mail.ParseAddress(address); err != nil || strings.ContainsAny(address, "\r\n") {
		p.add(field, `write it like "backup@example.com"`, "%q is not a mail address", address)
	}
}

// checkHostPort checks HOST:PORT, and returns the host; "" if it is wrong.
func checkHostPort(p *problems, field, address string) string {
	host, port, err := net.SplitHostPort(address)
	n, numErr := strconv.ParseUint(port, 10, 16)
	if err != nil || host == "" || numErr != nil || n == 0 {
		p.add(field, "write HOST:PORT", "%q is not the address of a server", address)
		return ""
	}
	return host
}

// checkTemplate checks a template by filling it in.
func checkTemplate(p *problems, field, text string) {
	if err := message.Check(text); err != nil {
		p.add(field, "use {{.Kind}} {{.Subject}} {{.Message}} {{.Next}} {{.Host}} {{.Time}} {{.Item}} {{.Job}} {{.Count}}", "%v", err)
	}
}

// defaults fills in what a notification may leave out.
func (n *Notify) defaults() {
	if n.Ping != nil {
		return
	}
	if len(n.On) == 0 {
		n.On = []string{string(message.Failure), string(message.Alarm), string(message.Recovery)}
	}
	n.Repeat = cmp.Or(n.Repeat, Duration(24*time.Hour))
}

package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cofferbackup/coffer/agent/control"
)

// Bounds of what the outside may ask for.
const (
	maxScrapes     = 4
	maxConnections = 32
	maxHeader      = 8 << 10
	slow           = 10 * time.Second
)

// ErrAddress: the address is not one of this machine.
var ErrAddress = errors.New("metrics are served on this machine alone: use 127.0.0.1:9464, [::1]:9464 or the path of a socket")

// Listen opens the place where metrics are served: host:port of a loopback address, or
// the absolute path of a unix socket, which its owner and group may use. Other
// addresses are refused: who may see metrics from outside is for a proxy to say.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	if filepath.IsAbs(address) {
		return control.Listen(ctx, address, control.ListenOptions{})
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("metrics on %q: %w", address, ErrAddress)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("metrics on %q: %w", address, ErrAddress)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics on %q: %w", address, err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() { // whatever localhost is here
		l.Close()
		return nil, fmt.Errorf("metrics on %q: %w", address, ErrAddress)
	}
	return l, nil
}

// Serve answers on l, which it closes, until ctx ends.
func (m *Metrics) Serve(ctx context.Context, l net.Listener, log *slog.Logger) error {
	server := &http.Server{Handler: m.Handler(), ReadHeaderTimeout: slow, ReadTimeout: slow, WriteTimeout: 2 * slow, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { server.Close() }) // a scrape that is cut off harms nobody
	defer stop()
	err := server.Serve(&bounded{Listener: l, places: make(chan struct{}, maxConnections)})
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve metrics: %w", err)
}

// Handler answers GET /metrics, and nothing else.
func (m *Metrics) Handler() http.Handler {
	scrape := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: slow})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", http.MaxBytesHandler(scrape, 0))
	return mux
}

// bounded accepts no more connections than there are places.
type bounded struct {
	net.Listener
	places chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	b.places <- struct{}{}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.places
		return nil, err
	}
	return &placed{Conn: conn, leave: sync.OnceFunc(func() { <-b.places })}, nil
}

// placed gives its place back when it is closed.
type placed struct {
	net.Conn
	leave func()
}

func (p *placed) Close() error {
	defer p.leave()
	return p.Conn.Close()
}

package control

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Status implements System.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil, nil)
}

// Version implements System.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return call[Version](ctx, c, http.MethodGet, "/v1/version", nil, nil)
}

// Diagnose implements System.
func (c *Client) Diagnose(ctx context.Context) (Diagnosis, error) {
	return call[Diagnosis](ctx, c, http.MethodPost, "/v1/doctor", nil, nil)
}

// CheckConfig implements Settings.
func (c *Client) CheckConfig(ctx context.Context, req ConfigCheck) (ConfigReport, error) {
	return call[ConfigReport](ctx, c, http.MethodPost, "/v1/config/check", nil, req)
}

// ReloadConfig implements Settings.
func (c *Client) ReloadConfig(ctx context.Context) (ConfigReport, error) {
	return call[ConfigReport](ctx, c, http.MethodPost, "/v1/config/reload", nil, nil)
}

// VerifyAudit implements System.
func (c *Client) VerifyAudit(ctx context.Context, req AuditVerify) (AuditReport, error) {
	return call[AuditReport](ctx, c, http.MethodPost, "/v1/audit/verify", nil, req)
}

// Vaults implements the interface Vaults.
func (c *Client) Vaults(ctx context.Context) ([]Vault, error) {
	return call[[]Vault](ctx, c, http.MethodGet, "/v1/vaults", nil, nil)
}

// Vault implements Vaults.
func (c *Client) Vault(ctx context.Context, name string) (Vault, error) {
	return named[Vault](ctx, c, "/v1/vaults/%s", "vault", name, nil)
}

// CreateVault implements Vaults.
func (c *Client) CreateVault(ctx context.Context, req VaultCreate) (VaultCreated, error) {
	return call[VaultCreated](ctx, c, http.MethodPost, "/v1/vaults", nil, req)
}

// Keys implements the interface Keys.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	return call[[]Key](ctx, c, http.MethodGet, "/v1/keys", nil, nil)
}

// CreateKey implements Keys.
func (c *Client) CreateKey(ctx context.Context, req KeyCreate) (Key, error) {
	return call[Key](ctx, c, http.MethodPost, "/v1/keys", nil, req)
}

// CheckKey implements Keys.
func (c *Client) CheckKey(ctx context.Context, req KeyCheckRequest) (KeyReport, error) {
	return call[KeyReport](ctx, c, http.MethodPost, "/v1/keys/check", nil, req)
}

// KeyUsage implements Keys.
func (c *Client) KeyUsage(ctx context.Context, req KeyUsageRequest) (KeyUsage, error) {
	q := url.Values{}
	if req.Version != "" {
		q.Set("version", req.Version)
	}
	return named[KeyUsage](ctx, c, "/v1/keys/%s/usage", "key", req.Key, q)
}

// LinkKey implements Custody.
func (c *Client) LinkKey(ctx context.Context, req KeyLink) (Vault, error) {
	return call[Vault](ctx, c, http.MethodPost, "/v1/keys/link", nil, req)
}

// RotateKeys implements Custody.
func (c *Client) RotateKeys(ctx context.Context, req KeyRotate) (Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/keys/rotate", nil, req)
}

// Revalidate implements Custody.
func (c *Client) Revalidate(ctx context.Context, req KeyRevalidate) (Vault, error) {
	return call[Vault](ctx, c, http.MethodPost, "/v1/keys/revalidate", nil, req)
}

// DrillKeys implements Custody.
func (c *Client) DrillKeys(ctx context.Context, req KeyDrill) (Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/keys/drill", nil, req)
}

// RaiseMode implements Custody.
func (c *Client) RaiseMode(ctx context.Context, req VaultMode) (Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/vaults/mode", nil, req)
}

// Items implements the interface Items.
func (c *Client) Items(ctx context.Context) ([]Item, error) {
	return call[[]Item](ctx, c, http.MethodGet, "/v1/items", nil, nil)
}

// Item implements Items.
func (c *Client) Item(ctx context.Context, name string) (Item, error) {
	return named[Item](ctx, c, "/v1/items/%s", "item", name, nil)
}

// EraseItem implements Items.
func (c *Client) EraseItem(ctx context.Context, req ItemErase) (ItemErased, error) {
	return call[ItemErased](ctx, c, http.MethodPost, "/v1/items/erase", nil, req)
}

// Points implements the interface Points.
func (c *Client) Points(ctx context.Context, req PointsRequest) iter.Seq2[Point, error] {
	return func(yield func(Point, error) bool) {
		q := url.Values{}
		if req.Item != "" {
			q.Set("item", req.Item)
		}
		if req.Last > 0 {
			q.Set("last", strconv.Itoa(req.Last))
		}
		stream(ctx, c, "/v1/points", q, yield)
	}
}

// pointPath returns the path of a point of an item.
func pointPath(item, point string) (string, error) {
	i, err := segment("item", item)
	if err != nil {
		return "", err
	}
	if point == "" {
		point = "latest"
	}
	p, err := segment("point", point)
	return "/v1/items/" + i + "/points/" + p, err
}

// Point implements Points.
func (c *Client) Point(ctx context.Context, item, point string) (Point, error) {
	path, err := pointPath(item, point)
	if err != nil {
		return Point{}, err
	}
	return call[Point](ctx, c, http.MethodGet, path, nil, nil)
}

// Entries implements Points.
func (c *Client) Entries(ctx context.Context, req EntriesRequest) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		path, err := pointPath(req.Item, req.Point)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		q := url.Values{"path": {req.Path}, "recursive": {strconv.FormatBool(req.Recursive)}}
		stream(ctx, c, path+"/entries", q, yield)
	}
}

// Diff implements Points.
func (c *Client) Diff(ctx context.Context, req DiffRequest) iter.Seq2[DiffEntry, error] {
	return func(yield func(DiffEntry, error) bool) {
		path, err := pointPath(req.Item, req.From)
		if err != nil {
			yield(DiffEntry{}, err)
			return
		}
		stream(ctx, c, path+"/diff", url.Values{"to": {req.To}, "path": {req.Path}}, yield)
	}
}

// Content implements Points.
func (c *Client) Content(ctx context.Context, req ContentRequest, w io.Writer) error {
	path, err := pointPath(req.Item, req.Point)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodGet, path+"/content", url.Values{"path": {req.Path}}, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := &markedReader{body: resp.Body, trailer: func() http.Header { return resp.Trailer }}
	_, err = io.Copy(w, in)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return broken(ctx, err)
	case in.err != nil && in.err != io.EOF: //nolint:errorlint // as markedReader keeps it
		return AsError(in.err)
	}
	return &Error{
		Code: CodeFailed, Message: fmt.Sprintf("write %s: %v", req.Path, err),
		Next: "see that there is room where the output goes, then ask again",
	}
}

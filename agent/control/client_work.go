package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// HoldPoint implements Retention.
func (c *Client) HoldPoint(ctx context.Context, req PointHold) (Hold, error) {
	return call[Hold](ctx, c, http.MethodPost, "/v1/points/hold", nil, req)
}

// ReleasePoint implements Retention.
func (c *Client) ReleasePoint(ctx context.Context, req PointRelease) (Point, error) {
	return call[Point](ctx, c, http.MethodPost, "/v1/points/release", nil, req)
}

// ForgetPoints implements Retention.
func (c *Client) ForgetPoints(ctx context.Context, req PointForget) ([]Point, error) {
	return call[[]Point](ctx, c, http.MethodPost, "/v1/points/forget", nil, req)
}

// Prune implements Retention.
func (c *Client) Prune(ctx context.Context, req PruneRequest) (Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/prune", nil, req)
}

// Policies implements the interface Policies.
func (c *Client) Policies(ctx context.Context) ([]Policy, error) {
	return call[[]Policy](ctx, c, http.MethodGet, "/v1/policies", nil, nil)
}

// Explain implements Policies.
func (c *Client) Explain(ctx context.Context, name string) (Explanation, error) {
	return named[Explanation](ctx, c, "/v1/policies/%s/explain", "policy", name, nil)
}

// RunPolicy implements Policies.
func (c *Client) RunPolicy(ctx context.Context, req PolicyRun) ([]Job, error) {
	return call[[]Job](ctx, c, http.MethodPost, "/v1/policies/run", nil, req)
}

// Backup implements Work.
func (c *Client) Backup(ctx context.Context, req BackupRequest) (Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/backup", nil, req)
}

// Restore implements Work.
func (c *Client) Restore(ctx context.Context, req RestoreRequest) (Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/restore", nil, req)
}

// Verify implements Work.
func (c *Client) Verify(ctx context.Context, req VerifyRequest) (Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/verify", nil, req)
}

// Jobs implements the interface Jobs.
func (c *Client) Jobs(ctx context.Context, filter JobFilter) ([]Job, error) {
	q := url.Values{}
	if filter.Item != "" {
		q.Set("item", filter.Item)
	}
	if filter.State != "" {
		q.Set("state", string(filter.State))
	}
	if filter.Limit != 0 {
		q.Set("limit", strconv.Itoa(filter.Limit))
	}
	return call[[]Job](ctx, c, http.MethodGet, "/v1/jobs", q, nil)
}

// jobPath returns the path of a job.
func jobPath(id int64) string { return "/v1/jobs/" + strconv.FormatInt(id, 10) }

// Job implements Jobs.
func (c *Client) Job(ctx context.Context, id int64) (Job, error) {
	return call[Job](ctx, c, http.MethodGet, jobPath(id), nil, nil)
}

// Cancel implements Jobs.
func (c *Client) Cancel(ctx context.Context, id int64) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, jobPath(id)+"/cancel", nil, nil)
	return err
}

// Events implements Jobs.
func (c *Client) Events(ctx context.Context, id int64, after uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		q := url.Values{"after": {strconv.FormatUint(after, 10)}}
		stream(ctx, c, jobPath(id)+"/events", q, yield)
	}
}

// Input implements Jobs. If r fails, the agent is told that the data is not
// whole, and the error is returned. It returns when ctx ends even if r blocks;
// then r may still be read from until that read returns.
func (c *Client) Input(ctx context.Context, id int64, r io.Reader) error {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.Copy(pw, r)
		pw.CloseWithError(err)
	}()
	// The transport waits for a read of the body before it reports anything else.
	defer context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })()
	defer pr.Close()
	body := &markingReader{r: pr}
	resp, err := c.do(ctx, http.MethodPut, jobPath(id)+"/input", nil, body, func(req *http.Request) {
		req.Header.Set("Content-Type", contentOctets)
		body.trailer = http.Header{trailerLength: nil}
		req.Trailer = body.trailer
	})
	// It is told also if the job ended first, and the caller with it: all that an end of
	// ctx makes of the body is a closed pipe.
	if failed := body.failure(); failed != nil && !errors.Is(failed, io.ErrClosedPipe) {
		if err == nil {
			resp.Body.Close()
		}
		return &Error{
			Code: CodeFailed, Message: fmt.Sprintf("read input: %v", failed),
			Next: "mend what the data comes from, then back up again: no point was made",
		}
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return broken(ctx, err)
	}
	return nil
}

ALTER TABLE "notification_signals" ADD COLUMN "count" integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE "notification_signals" ADD COLUMN "facts" jsonb DEFAULT '{}'::jsonb NOT NULL;
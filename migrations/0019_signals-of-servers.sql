ALTER TABLE "notification_signals" ADD COLUMN "server" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "notification_signals" DROP CONSTRAINT "notification_signals_subject_event_pk";--> statement-breakpoint
ALTER TABLE "notification_signals" ADD CONSTRAINT "notification_signals_subject_event_server_pk" PRIMARY KEY("subject","event","server");
